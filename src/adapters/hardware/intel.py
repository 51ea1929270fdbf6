"""Intel's devices: found by sysfs, their memory by xpu-smi, or by OpenCL and the kernel's client counters."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...domain.ports.hardware import Gpu
from .drm_clients import used_by_device
from .sysfs import Card, read_cards
from .tools import Tools

_TOOL_S = 2.0
_MIB = 1024**2
_BUS_INFO = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.IGNORECASE)


@dataclass
class IntelDevices:
    """Reads the devices. What OpenCL says of their size is asked once: it does not change.

    Devices without memory of their own (those inside a CPU) keep an unknown size.
    Source: LocalAI pkg/xsysinfo.
    """

    sysroot: Path
    tools: Tools
    _sizes: Mapping[str, int] | None = field(default=None, init=False)

    def read(self) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
        """The devices in the order of their card numbers, and what could not be asked."""
        cards = read_cards(self.sysroot, "intel")
        if not cards:
            return (), ()
        try:
            cards = _completed(cards, self._by_xpu_smi()) or self._by_opencl(cards)
        except (OSError, ValueError, KeyError, TypeError) as error:
            return tuple(card.gpu for card in cards), (f"intel: {type(error).__name__}: {error}",)
        return tuple(card.gpu for card in cards), ()

    def _by_xpu_smi(self) -> dict[str, Card]:
        """By PCI address; empty where xpu-smi is not installed or knows nothing."""
        listed = self.tools.run("xpu-smi", "discovery", "--json", timeout_s=_TOOL_S)
        found = {}
        for device in _object(listed).get("device_list", ()):
            number = int(device["device_id"])
            size = device.get("memory_physical_size_byte")
            stats = self.tools.run("xpu-smi", "stats", "-d", str(number), "--json", timeout_s=_TOOL_S)
            address = str(device.get("pci_bdf_address", "")).lower()
            found[address or f"#{number}"] = Card(
                vendor="intel",
                number=number,
                name=str(device.get("device_name", "")),
                pci_address=address,
                total_bytes=None if size is None else int(size),
                used_bytes=_memory_used(_object(stats)),
            )
        return found

    def _by_opencl(self, cards: tuple[Card, ...]) -> tuple[Card, ...]:
        if self._sizes is None:
            self._sizes = dict(_opencl_sizes(self.tools.run("clinfo", "--json", timeout_s=_TOOL_S)))
        if not self._sizes:
            return cards
        used = used_by_device(self.sysroot)
        return tuple(
            replace(card, total_bytes=self._sizes[card.pci_address], used_bytes=used.get(card.pci_address, 0))
            if card.pci_address in self._sizes
            else card
            for card in cards
        )


def _completed(cards: tuple[Card, ...], told: Mapping[str, Card]) -> tuple[Card, ...]:
    """`cards` with the figures of the tool, by address, or by number where it gives none; () without any."""
    if not told:
        return ()
    completed = []
    for index, card in enumerate(cards):
        figures = told.get(card.pci_address) or told.get(f"#{index}")
        if figures is not None:
            card = replace(
                card,
                name=figures.name or card.name,
                total_bytes=figures.total_bytes,
                used_bytes=figures.used_bytes,
            )
        completed.append(card)
    return tuple(completed)


def _memory_used(stats: Mapping[str, Any]) -> int | None:
    """Bytes: the plain field of older versions, or the metric, which counts MiB."""
    if "memory_used" in stats:
        return int(stats["memory_used"])
    for metric in stats.get("device_level", ()):
        if metric.get("metrics_type") == "XPUM_STATS_MEMORY_USED":
            return int(float(metric["value"]) * _MIB)
    return None


def _object(text: str | None) -> dict[str, Any]:
    """The JSON object a tool printed; empty where the tool is not there."""
    value = json.loads(text or "{}")
    if not isinstance(value, dict):
        raise TypeError("the tool printed no JSON object")
    return value


def _opencl_sizes(text: str | None) -> Iterator[tuple[str, int]]:
    """PCI address and bytes of each GPU with memory of its own; the largest where one appears twice."""
    sizes: dict[str, int] = {}
    for platform in _object(text).get("devices", ()):
        for device in platform.get("online", ()):
            address = _BUS_INFO.search(str(device.get("CL_DEVICE_PCI_BUS_INFO_KHR", "")))
            kinds = device.get("CL_DEVICE_TYPE", {}).get("type", ())
            shares = device.get("CL_DEVICE_HOST_UNIFIED_MEMORY", False)
            if address is None or "CL_DEVICE_TYPE_GPU" not in kinds or shares:
                continue
            key = address[0].lower()
            sizes[key] = max(sizes.get(key, 0), int(device["CL_DEVICE_GLOBAL_MEM_SIZE"]))
    yield from sizes.items()
