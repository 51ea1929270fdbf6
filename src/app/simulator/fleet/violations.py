"""A broken invariant, and who notes the first one."""

from collections.abc import Callable
from dataclasses import dataclass

import anyio

from .history import History
from .host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One invariant that did not hold; `step` is the number of the event after which it was seen."""

    invariant: str
    where: str
    what: str
    at_s: float
    step: int

    def __str__(self) -> str:
        return f"{self.invariant} on {self.where} at {self.at_s:.3f} s (step {self.step}): {self.what}"


@dataclass(eq=False)
class Verdict:
    """Keeps the first violation and calls `broken`: what happens after it proves nothing."""

    history: History
    broken: Callable[[], object]
    violation: Violation | None = None

    def fault(self, invariant: str, host: Host | None, what: str) -> None:
        """An invariant does not hold on `host`, or None for the fleet."""
        if self.violation is not None:
            return
        self.violation = Violation(
            invariant=invariant,
            where=host.name if host else "the fleet",
            what=what,
            at_s=anyio.current_time(),
            step=self.history.events,
        )
        self.history.add(self.violation.where, f"VIOLATION {invariant}: {what}")
        self.history.close()
        self.broken()
