"""AMD's devices: by sysfs, and by rocm-smi where the driver publishes no figures there."""

import csv
import io
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...domain.ports.hardware import Gpu
from .sysfs import Card, read_cards
from .tools import Tools
from .visible import AMD_VARIABLES, visible

_TOOL_S = 2.0
_MIB = 1024**2
_PLAUSIBLE_BYTES = 1_000_000  # rocm-smi's figure below this is in MiB; Source: LocalAI pkg/xsysinfo


@dataclass
class AmdDevices:
    """Reads the devices; ROCR_VISIBLE_DEVICES and HIP_VISIBLE_DEVICES count.

    On a machine without a card of AMD's, rocm-smi is run once.
    """

    sysroot: Path
    tools: Tools
    _nothing: bool = field(default=False, init=False)

    def read(self) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
        """The devices in the order of their card numbers, and what could not be asked."""
        cards = read_cards(self.sysroot, "amd")
        warnings: tuple[str, ...] = ()
        if any(card.total_bytes is None for card in cards) or not (cards or self._nothing):
            try:
                cards = _with_figures(cards, self._ask_tool())
                self._nothing = not cards
            except (OSError, ValueError) as error:
                warnings = (f"amd: {error}",)
        named = [(f"GPU-{card.unique_id}", card) for card in cards]
        left = visible(named, self.tools.environment, AMD_VARIABLES)
        return tuple(card.gpu for _, card in left), warnings

    def _ask_tool(self) -> dict[int, tuple[int, int]]:
        """Total and used bytes by rocm-smi's device number; empty where it is not installed."""
        output = self.tools.run("rocm-smi", "--showmeminfo", "vram", "--csv", timeout_s=_TOOL_S)
        figures = {}
        for row in csv.reader(io.StringIO(output or "")):
            number = re.search(r"\d+", row[0]) if len(row) >= 3 else None
            if number is None or not row[1].strip().isdigit():
                continue  # the head, or a line of warning
            total, used = int(row[1]), int(row[2])
            unit = _MIB if total < _PLAUSIBLE_BYTES else 1
            figures[int(number[0])] = (total * unit, used * unit)
        return figures


def _with_figures(cards: tuple[Card, ...], figures: dict[int, tuple[int, int]]) -> tuple[Card, ...]:
    """`cards` completed by what the tool said; the devices it knows where sysfs shows none."""
    known = cards or tuple(Card(vendor="amd", number=number, name=f"amd {number}") for number in figures)
    completed = []
    for card, number in zip(known, sorted(figures), strict=False):
        if card.total_bytes is None:
            card = replace(card, total_bytes=figures[number][0], used_bytes=figures[number][1])
        completed.append(card)
    return (*completed, *known[len(completed) :])
