"""How far an install is, for those who watch it."""

from collections.abc import Callable
from dataclasses import dataclass

from .messages.backend_progress import InstallPhase
from .ports.artifacts import FetchProgress, Report

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, slots=True)
class InstallStep:
    """What an install is at: `done_bytes` of `total_bytes` (0 while unknown) from `source`."""

    phase: InstallPhase
    source: str = ""
    done_bytes: int = 0
    total_bytes: int = 0


Listen = Callable[[InstallStep], None]


def unheard(_: InstallStep) -> None:
    """For those who do not watch."""


def reporting(listen: Listen, source: str) -> Report:
    """Tells `listen` of the fetch from `source`."""

    def report(progress: FetchProgress) -> None:
        phase = InstallPhase(progress.phase.value)
        listen(InstallStep(phase, source, progress.done_bytes, progress.total_bytes))

    return report


@dataclass
class Percentage:
    """The share of an install that is done, 0 to 100: never less than before, 100 only when all is.

    A mirror that begins anew after another source broke does not take it back.
    """

    value: float = 0.0

    def after(self, step: InstallStep) -> float:
        """The percentage once `step` is reached; a tenth of a percent is fine enough."""
        if step.phase is InstallPhase.STARTING:
            reached = _BEFORE_THE_END
        else:
            reached = step.done_bytes / step.total_bytes * _BEFORE_THE_END if step.total_bytes else 0.0
        self.value = round(max(self.value, min(reached, _BEFORE_THE_END)), 1)
        return self.value


_BEFORE_THE_END = 99.0


def human_bytes(size_bytes: int) -> str:
    """A size for people, as upstream writes it: `412.0 MiB`; bytes below 1 KiB without a fraction."""
    size, unit = float(size_bytes), 0
    while size >= 1024 and unit + 1 < len(_UNITS):
        size, unit = size / 1024, unit + 1
    return f"{size_bytes} B" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
