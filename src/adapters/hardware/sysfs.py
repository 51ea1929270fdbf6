"""What Linux tells about graphics devices without any vendor's tool."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...domain.ports.hardware import Gpu

# PCI vendor ids; NVIDIA is asked by its own library.
_VENDORS = {"0x1002": "amd", "0x8086": "intel"}
_CARD = re.compile(r"card(\d+)")  # entries with a `-` are a card's connectors
_PCI_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A graphics device. `pci_address` like `0000:03:00.0`, "" where it is no PCI device; bytes.

    The memory figures are those amdgpu publishes; without them (Intel, an old driver) they are None.
    `unique_id` is AMD's serial number, 16 hex digits or "".
    """

    vendor: str
    number: int
    name: str
    pci_address: str = ""
    unique_id: str = ""
    total_bytes: int | None = None
    used_bytes: int | None = None

    @property
    def gpu(self) -> Gpu:
        """The device as the domain knows it."""
        free_bytes = None
        if self.total_bytes is not None and self.used_bytes is not None:
            free_bytes = max(0, self.total_bytes - self.used_bytes)
        return Gpu(vendor=self.vendor, name=self.name, total_bytes=self.total_bytes, free_bytes=free_bytes)


def read_cards(sysroot: Path, vendor: str) -> tuple[Card, ...]:
    """The devices of `vendor` (`amd`, `intel`), in the order of their numbers.

    Source: LocalAI pkg/xsysinfo, which falls back to the same directory.
    """
    return tuple(sorted(_cards(sysroot, vendor), key=lambda card: card.number))


def _cards(sysroot: Path, wanted: str) -> Iterator[Card]:
    for entry in _entries(sysroot / "sys/class/drm"):
        card = _CARD.fullmatch(entry.name)
        device = entry / "device"
        vendor = _VENDORS.get(_text(device / "vendor"))
        if card is None or vendor != wanted:
            continue  # nothing else of another vendor's card is read: it may hang
        address = device.resolve().name
        yield Card(
            vendor=vendor,
            number=int(card[1]),
            name=_text(device / "product_name") or f"{vendor} {_text(device / 'device')}".rstrip(),
            pci_address=address.lower() if _PCI_ADDRESS.fullmatch(address) else "",
            unique_id=_text(device / "unique_id"),
            total_bytes=_number(device / "mem_info_vram_total"),
            used_bytes=_number(device / "mem_info_vram_used"),
        )


def nvidia_soc(sysroot: Path) -> str:
    """The name of an NVIDIA system-on-chip (Jetson, DGX Spark, Thor), whose GPU shares the RAM; else "".

    Source: LocalAI pkg/xsysinfo.
    """
    soc_id = _text(sysroot / "sys/devices/soc0/soc_id")
    if soc_id == "jep106:0426:8901":
        return "NVIDIA GB10"
    if soc_id.startswith("jep106:0426") or _text(sysroot / "sys/devices/soc0/family") == "Tegra":
        return _text(sysroot / "proc/device-tree/model") or "NVIDIA Jetson"
    return ""


def cuda_directories(sysroot: Path) -> frozenset[int]:
    """The major versions N of which `/usr/local/cuda-N` exists."""
    return frozenset(major for major in (12, 13) if (sysroot / f"usr/local/cuda-{major}").exists())


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text else None


def _text(path: Path) -> str:
    """The file's text without line end and NUL; "" if there is no such file."""
    try:
        return path.read_text(errors="replace").strip("\0 \n")
    except (FileNotFoundError, NotADirectoryError):
        return ""
