"""What a node tells the frontend of itself: its profile as configured, its hardware as it is now."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .messages.registration import Heartbeat, RegisterRequest
from .ports.filesystem import DiskSpace
from .ports.hardware import Hardware


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProfile:
    """What the operator said about this node; the hardware is read when it is needed.

    `address` and `http_address` are `host:port` as the frontend dials them; `labels` as configured.
    """

    name: str
    address: str
    http_address: str
    token: str = field(repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    max_replicas_per_model: int = 1
    vram_budget: str = ""
    models_path: Path = Path("/")


def registration(
    profile: NodeProfile, hardware: Hardware, disk: DiskSpace | None, capability: str
) -> RegisterRequest:
    """The registration of the node as it is now; what cannot be read is left out."""
    slots = max(profile.max_replicas_per_model, 1)
    vram = hardware.total_vram_bytes
    return RegisterRequest(
        name=profile.name,
        address=profile.address,
        http_address=profile.http_address,
        token=profile.token,
        total_vram=vram,
        available_vram=vram if hardware.free_vram_bytes is None else hardware.free_vram_bytes,
        gpu_vendor=hardware.vendor,
        total_ram=hardware.ram.total_bytes if hardware.ram else None,
        available_ram=hardware.ram.available_bytes if hardware.ram else None,
        gpu_compute_capability=hardware.compute_capability,
        capability=capability,
        max_replicas_per_model=slots,
        total_disk=disk.total_bytes if disk else None,
        available_disk=disk.available_bytes if disk else None,
        vram_budget=profile.vram_budget,
        labels={**profile.labels, "node.replica-slots": str(slots)},
    )


def heartbeat(hardware: Hardware, disk: DiskSpace | None) -> Heartbeat:
    """The readings of the moment; what cannot be read is left out."""
    return Heartbeat(
        available_vram=hardware.free_vram_bytes if hardware.total_vram_bytes else None,
        available_ram=hardware.ram.available_bytes if hardware.ram else None,
        total_disk=disk.total_bytes if disk else None,
        available_disk=disk.available_bytes if disk else None,
    )
