"""The frontend's row of a node, and what a registration or a heartbeat writes into it.

Sources: LocalAI core/services/nodes/registry.go, core/http/endpoints/localai/nodes.go.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from ...domain.messages.node_status import LoadedModel
from ...domain.messages.registration import Heartbeat, RegisterRequest
from ...domain.node import NodeId
from ...domain.vram_budget import VramBudget, WrongVramBudget, parse_vram_budget

Generation = Literal["seed", "newer"]
"""Which frontend is played: `seed`, the oldest one a worker must serve, or `newer`."""

_LABEL_KEY_CHARS = 128
_LABEL_VALUE_CHARS = 255
_VRAM_BUCKETS_GIB = ((80, "80GB+"), (48, "48GB"), (24, "24GB"), (16, "16GB"), (8, "8GB"))


class NodeStatus(StrEnum):
    """Only `healthy` nodes get work."""

    PENDING = "pending"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    OFFLINE = "offline"
    DRAINING = "draining"


@dataclass
class NodeRow:
    """One node as the frontend knows it; sizes are bytes, `models` by model name and replica index."""

    id: NodeId
    name: str
    status: NodeStatus
    created_at: datetime
    last_heartbeat: datetime
    node_type: str = "backend"
    address: str = ""
    http_address: str = ""
    total_vram: int = 0
    available_vram: int = 0
    gpu_vendor: str = ""
    total_ram: int = 0
    available_ram: int = 0
    total_disk: int = 0  # 0: not reported
    available_disk: int = 0
    gpu_compute_capability: str = ""
    capability: str = ""
    max_replicas_per_model: int = 1
    vram_budget: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    models: dict[tuple[str, int], LoadedModel] = field(default_factory=dict)

    def take_registration(self, request: RegisterRequest, generation: Generation, now: datetime) -> None:
        """Write what `request` says; the worker starts with nothing loaded.

        Zero and empty values leave the old ones, except where a newer frontend forces the column.
        """
        self.last_heartbeat = now
        self.models.clear()
        self._take_nonzero(request, "address", "http_address", "total_vram", "available_vram")
        self._take_nonzero(request, "gpu_vendor", "total_ram", "available_ram")
        if generation == "newer":
            self._take_nonzero(request, "gpu_compute_capability", "capability")
            self.max_replicas_per_model = max(request.max_replicas_per_model or 1, 1)
            self.total_disk, self.available_disk = request.total_disk or 0, request.available_disk or 0
            self.vram_budget = request.vram_budget
            self.available_vram = self._within_budget(request.available_vram)
        self._take_labels(request.labels, generation)
        self.labels |= self._automatic_labels(request, generation)

    def take_heartbeat(self, beat: Heartbeat, generation: Generation, now: datetime) -> None:
        """Write what `beat` says; of a pending or offline node only the time moves."""
        self.last_heartbeat = now
        if self.status in {NodeStatus.PENDING, NodeStatus.OFFLINE}:
            return
        if beat.total_vram is not None:
            self.total_vram = beat.total_vram
        if beat.available_vram is not None:
            newer = generation == "newer"
            self.available_vram = self._within_budget(beat.available_vram) if newer else beat.available_vram
        if beat.available_ram is not None:
            self.available_ram = beat.available_ram
        if beat.gpu_vendor is not None:
            self.gpu_vendor = beat.gpu_vendor
        if generation == "newer":
            self.total_disk = self.total_disk if beat.total_disk is None else beat.total_disk
            self.available_disk = self.available_disk if beat.available_disk is None else beat.available_disk

    def take_offline(self) -> None:
        """Keep the row, forget what was loaded."""
        self.status = NodeStatus.OFFLINE
        self.models.clear()

    def _take_nonzero(self, request: RegisterRequest, *names: str) -> None:
        for name in names:
            if value := getattr(request, name):
                setattr(self, name, value)

    def _within_budget(self, available_vram: int) -> int:
        if not self.vram_budget:
            return available_vram
        try:
            budget = parse_vram_budget(self.vram_budget)
        except WrongVramBudget:
            return available_vram  # as the frontend, which logs it and applies no cap
        if budget == VramBudget():
            return available_vram
        return min(available_vram, budget.ceiling_bytes(self.total_vram))

    def _take_labels(self, given: Mapping[str, str], generation: Generation) -> None:
        """A seed frontend replaces the set, or keeps it whole when one label is too long; a newer merges."""
        fitting = {key: value for key, value in given.items() if _fits(key, value)}
        if generation == "newer":
            self.labels |= fitting
        elif given and len(fitting) == len(given):
            self.labels = fitting

    def _automatic_labels(self, request: RegisterRequest, generation: Generation) -> dict[str, str]:
        labels = {"node.name": self.name}
        if request.gpu_vendor:
            labels["gpu.vendor"] = request.gpu_vendor
        if request.total_vram:
            labels["gpu.vram"] = _vram_bucket(request.total_vram)
        if generation == "newer":
            labels["node.replica-slots"] = str(self.max_replicas_per_model)
        return labels


def _fits(key: str, value: str) -> bool:
    return len(key) <= _LABEL_KEY_CHARS and len(value) <= _LABEL_VALUE_CHARS


def _vram_bucket(total_vram: int) -> str:
    gib = total_vram >> 30
    return next((bucket for least, bucket in _VRAM_BUCKETS_GIB if gib >= least), f"{gib}GB")
