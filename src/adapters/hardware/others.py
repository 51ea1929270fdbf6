"""Devices that only a general tool knows: Vulkan's, and Apple's."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...domain.ports.hardware import Gpu
from .tools import Tools

_TOOL_S = 3.0
_DEVICE = re.compile(r"^GPU\d+:\s*$", re.MULTILINE)
_HEAP = re.compile(r"^\s*memoryHeaps\[\d+\]:\s*$", re.MULTILINE)


@dataclass
class OtherDevices:
    """Asked only where neither NVIDIA, AMD nor Intel was found. Source: LocalAI pkg/xsysinfo.

    A tool that once found nothing is not run again: it takes a core for a second, and heartbeats ask
    every ten.
    """

    tools: Tools
    system: str  # as Go names it
    _nothing: bool = field(default=False, init=False)

    def read(self) -> tuple[Gpu, ...]:
        """The devices in the tool's order.

        Raises OSError or ValueError if a tool is there and fails.
        """
        if self._nothing:
            return ()
        if self.system == "darwin":
            said = self.tools.run("system_profiler", "SPDisplaysDataType", "-json", timeout_s=_TOOL_S)
            devices = tuple(_apple(said or "{}"))
        else:
            devices = tuple(_vulkan(self.tools.run("vulkaninfo", "--text", timeout_s=_TOOL_S) or ""))
        self._nothing = not devices
        return devices


def _apple(text: str) -> Iterator[Gpu]:
    """Apple's GPUs, which share the RAM."""
    for device in json.loads(text).get("SPDisplaysDataType", ()):
        vendor = str(device.get("spdisplays_vendor", "")).lower()
        if "apple" in vendor and device.get("sppci_device_type") == "spdisplays_gpu":
            name = str(device.get("sppci_model") or "Apple GPU")
            yield Gpu(vendor="apple", name=name, total_bytes=None, free_bytes=None, unified=True)


def _vulkan(text: str) -> Iterator[Gpu]:
    """Each device that is no software renderer, with the sum of the heaps that are its own."""
    for section in _DEVICE.split(text)[1:]:
        kind = _setting(section, "deviceType")
        if not kind or kind == "PHYSICAL_DEVICE_TYPE_CPU":
            continue
        total_bytes = free_bytes = 0
        heaps = section.partition("memoryHeaps: ")[2].partition("memoryTypes: ")[0]
        for heap in _HEAP.split(heaps)[1:]:
            size = _bytes(heap, "size")
            if size is None or "MEMORY_HEAP_DEVICE_LOCAL_BIT" not in heap:
                continue
            total_bytes += size
            free_bytes += _free(size, _bytes(heap, "budget"), _bytes(heap, "usage"))
        name = _setting(section, "deviceName") or "Vulkan device"
        known = total_bytes > 0
        yield Gpu(
            vendor="vulkan",
            name=name,
            total_bytes=total_bytes if known else None,
            free_bytes=free_bytes if known else None,
        )


def _free(size: int, budget: int | None, usage: int | None) -> int:
    """What may still be used of a heap: its budget, or else its size less what is used."""
    return min(size, budget) if budget is not None else max(0, size - (usage or 0))


def _setting(text: str, name: str) -> str:
    found = re.search(rf"^\s*{name}\s*=\s*(.+?)\s*$", text, re.MULTILINE)
    return found[1] if found else ""


def _bytes(text: str, name: str) -> int | None:
    number = re.match(r"\d+", _setting(text, name))
    return int(number[0]) if number else None
