"""The VRAM budget of a node: how much of its graphics memory the frontend may plan with."""

import re
from dataclasses import dataclass
from fractions import Fraction

from .errors import WorkerError

_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_BUDGET = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(%|b|[kmgt]i?b)?", re.IGNORECASE)
_LONGEST = 64  # characters; far beyond any size, far below what would be slow to read


@dataclass(eq=False)
class WrongVramBudget(WorkerError):
    """A text the frontend would log and ignore as a budget."""

    text: str

    def __str__(self) -> str:
        return f'"{self.text}" must be a share like 80% or 0.8, or a size like 12GB or 12GiB'


@dataclass(frozen=True, slots=True)
class VramBudget:
    """Either a share of the total (`share`, above 0 and up to 1) or a size in bytes; neither is no cap."""

    share: Fraction | None = None
    size_bytes: int | None = None

    def ceiling_bytes(self, total_bytes: int) -> int:
        """What of `total_bytes` may be used."""
        if self.share is not None:
            return int(total_bytes * self.share)
        return total_bytes if self.size_bytes is None else min(total_bytes, self.size_bytes)


def parse_vram_budget(text: str) -> VramBudget:
    """Read `80%`, `0.8`, `12GB` (1000) or `12GiB` (1024), any case, or whole bytes; ``""`` and 0 are no cap.

    The worker itself only sends the text: it reports raw figures and the frontend applies the cap.
    Source: LocalAI pkg/xsysinfo.

    Raises:
        WrongVramBudget: more than 100 %, negative, a fraction of a byte, or no budget at all.
    """
    if not text.strip():
        return VramBudget()
    found = _BUDGET.fullmatch(text.strip())
    if found is None or len(text) > _LONGEST:
        raise WrongVramBudget(text[:_LONGEST])
    number, unit = Fraction(found[1]), (found[2] or "").lower()
    if number == 0:
        return VramBudget()
    if unit == "%" or (not unit and number <= 1):
        share = number / 100 if unit else number
        if share > 1:
            raise WrongVramBudget(text)
        return VramBudget(share=share)
    if not unit and number.denominator != 1:
        raise WrongVramBudget(text)
    step = 1024 if "i" in unit else 1000
    return VramBudget(size_bytes=int(number * step ** _POWERS.get(unit[:1], 0)))
