"""What a node tells the frontend over HTTP when it registers and at every heartbeat, and the answers.

Sources: LocalAI core/cli/workerregistry/client.go (worker), core/http/endpoints/localai/nodes.go (frontend).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from ..errors import MalformedMessage
from .document import Fields, decode_object
from .reading import (
    read_optional_int64,
    read_optional_text,
    read_optional_uint64,
    read_text,
    read_text_map,
    read_uint64,
)
from .wire import WireObject
from .writing import without_zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRequest(WireObject):
    """Body of `POST /api/node/register`; sizes are bytes, addresses `host:port`.

    The first seven fields but `token` are always sent, also as 0 and `""`. `token`, `node_type`,
    `vram_budget` and `labels` are left out when empty, every other field when None. A size of 0 is a
    statement (a full disk, no memory), so it is sent. `total_vram` is raw: the frontend applies
    `vram_budget` (`80%`, `12GB`). A repeated registration of `name` keeps the node's id. The frontend
    answers 400 `invalid request body` where `from_wire` raises.
    """

    name: str
    address: str
    http_address: str
    total_vram: int = 0
    available_vram: int = 0
    gpu_vendor: str = ""
    token: str = field(default="", repr=False)
    node_type: str = ""
    total_ram: int | None = None
    available_ram: int | None = None
    total_disk: int | None = None
    available_disk: int | None = None
    gpu_compute_capability: str | None = None
    capability: str | None = None
    max_replicas_per_model: int | None = None
    vram_budget: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            name=read_text(fields, "name"),
            address=read_text(fields, "address"),
            http_address=read_text(fields, "http_address"),
            total_vram=read_uint64(fields, "total_vram"),
            available_vram=read_uint64(fields, "available_vram"),
            gpu_vendor=read_text(fields, "gpu_vendor"),
            token=read_text(fields, "token"),
            node_type=read_text(fields, "node_type"),
            total_ram=read_optional_uint64(fields, "total_ram"),
            available_ram=read_optional_uint64(fields, "available_ram"),
            total_disk=read_optional_uint64(fields, "total_disk"),
            available_disk=read_optional_uint64(fields, "available_disk"),
            gpu_compute_capability=read_optional_text(fields, "gpu_compute_capability"),
            capability=read_optional_text(fields, "capability"),
            max_replicas_per_model=read_optional_int64(fields, "max_replicas_per_model"),
            vram_budget=read_text(fields, "vram_budget"),
            labels=read_text_map(fields, "labels"),
        )

    def to_fields(self) -> dict[str, object]:
        """What is written: every stated size, and the labels in key order as Go writes maps."""
        values = self._values() | {"labels": dict(sorted(self.labels.items()))}
        omitted_when_empty = ("token", "node_type", "vram_budget", "labels")
        stated = [
            name for name, value in values.items() if value is not None and name not in omitted_when_empty
        ]
        return without_zeros(values, always=stated)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterReply(WireObject):
    """Answer 201 to a registration; `id` is never empty.

    `status` is `healthy` or `pending`; a pending node is never scheduled and is not told when it is
    approved. `created_at` is RFC 3339, the year 1 at a re-registration. `nats_jwt` and `nats_user_seed`
    come, afresh each time, from a newer frontend that can mint them. `api_token` is for agent nodes.
    An answer without an `id` is malformed, because every later call would miss its node; `name`,
    `node_type` and `created_at` only inform, so a wrong type there reads as empty.
    """

    _always = ("id", "name", "node_type", "status", "created_at")

    id: str
    name: str = ""
    node_type: str = ""
    status: str = ""
    created_at: str = ""
    api_token: str = field(default="", repr=False)
    nats_jwt: str = field(default="", repr=False)
    nats_user_seed: str = field(default="", repr=False)

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        node_id = read_text(fields, "id")
        if not node_id:
            raise MalformedMessage('field "id": want the node id, got nothing; is this a LocalAI frontend?')
        return cls(
            id=node_id,
            name=_optional_text_or_empty(fields, "name") or "",
            node_type=_optional_text_or_empty(fields, "node_type") or "",
            status=read_text(fields, "status"),
            created_at=_optional_text_or_empty(fields, "created_at") or "",
            api_token=read_text(fields, "api_token"),
            nats_jwt=read_text(fields, "nats_jwt"),
            nats_user_seed=read_text(fields, "nats_user_seed"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(WireObject):
    """Body of `POST /api/node/{id}/heartbeat`; sizes are bytes, None is left out and leaves the old value.

    An unknown `available_vram` is left out: 0 would tell the frontend that the node is full.
    """

    available_vram: int | None = None
    total_vram: int | None = None
    available_ram: int | None = None
    gpu_vendor: str | None = None
    total_disk: int | None = None
    available_disk: int | None = None

    @classmethod
    def from_wire(cls, payload: bytes) -> Self:
        """As the frontend reads it, which refuses nothing.

        An undecodable body says nothing, and a field of the wrong type is stored as its zero value.
        """
        try:
            return cls.from_fields(decode_object(payload))
        except MalformedMessage:
            return cls()

    def to_fields(self) -> dict[str, object]:
        """What is written: everything known, zeros too."""
        return {name: value for name, value in self._values().items() if value is not None}

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            available_vram=_uint64_or_zero(fields, "available_vram"),
            total_vram=_uint64_or_zero(fields, "total_vram"),
            available_ram=_uint64_or_zero(fields, "available_ram"),
            gpu_vendor=_optional_text_or_empty(fields, "gpu_vendor"),
            total_disk=_uint64_or_zero(fields, "total_disk"),
            available_disk=_uint64_or_zero(fields, "available_disk"),
        )


def _optional_text_or_empty(fields: Fields, name: str) -> str | None:
    try:
        return read_optional_text(fields, name)
    except MalformedMessage:
        return ""


def _uint64_or_zero(fields: Fields, name: str) -> int | None:
    try:
        return read_optional_uint64(fields, name)
    except MalformedMessage:
        return 0
