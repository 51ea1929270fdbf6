"""What Linux tells about graphics devices without any vendor's tool."""

import re
from pathlib import Path

from ...domain.ports.hardware import Gpu

# PCI vendor ids; NVIDIA is asked by its own library.
_VENDORS = {"0x1002": "amd", "0x8086": "intel"}
_CARD = re.compile(r"card(\d+)")  # entries with a `-` are a card's connectors


def read_cards(sysroot: Path) -> tuple[Gpu, ...]:
    """AMD's devices, then Intel's, each in the order of their numbers.

    The memory figures are those amdgpu publishes; without them (Intel, an old driver) it is unknown.
    Source: LocalAI pkg/xsysinfo, which falls back to the same directory.
    """
    found: list[tuple[str, int, Gpu]] = []
    for entry in _entries(sysroot / "sys/class/drm"):
        card = _CARD.fullmatch(entry.name)
        device = entry / "device"
        vendor = _VENDORS.get(_text(device / "vendor"))
        if card is None or vendor is None:
            continue
        total_bytes = _number(device / "mem_info_vram_total")
        used_bytes = _number(device / "mem_info_vram_used")
        free_bytes = None
        if total_bytes is not None and used_bytes is not None:
            free_bytes = max(0, total_bytes - used_bytes)
        gpu = Gpu(
            vendor=vendor,
            name=_text(device / "product_name") or f"{vendor} {_text(device / 'device')}".rstrip(),
            total_bytes=total_bytes,
            free_bytes=free_bytes,
        )
        found.append((vendor, int(card[1]), gpu))
    return tuple(gpu for _, _, gpu in sorted(found, key=lambda item: item[:2]))


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
