"""From a history that breaks an invariant to the shortest one found that still breaks it."""

from collections.abc import Callable
from dataclasses import replace

from .plan import Case, Fault
from .simulation import Outcome, play

_MOST_RUNS = 60
_AFTER_S = 1.0

Played = Callable[[Case], Outcome]


def shrink(outcome: Outcome, *, most_runs: int = _MOST_RUNS, played: Played = play) -> Outcome:
    """The outcome of a smaller case that breaks the same invariant, after at most `most_runs` simulations.

    First everything after the violation goes, then faults, in halves and ever smaller parts, then the
    requests and operations that nothing of it needs. The same outcome comes back where nothing can go.
    """
    if outcome.violation is None:
        raise ValueError("nothing is broken")
    return _Shrinking(outcome, most_runs, played).run()


class _Shrinking:
    def __init__(self, outcome: Outcome, most_runs: int, played: Played) -> None:
        self._best = outcome
        self._left = most_runs
        self._played = played

    def run(self) -> Outcome:
        self._cut()
        self._drop_faults()
        self._try(replace(self._best.case, plan=replace(self._best.case.plan, operations=0.0)))
        self._try(replace(self._best.case, plan=replace(self._best.case.plan, requests=0.0)))
        self._cut()
        return self._best

    def _cut(self) -> None:
        """End just after the violation, unless it is one of the end itself."""
        case, violation = self._best.case, self._best.violation
        assert violation is not None
        if violation.at_s < case.end_s:
            faults = tuple(fault for fault in case.faults if fault.at_s <= violation.at_s)
            self._try(replace(case, until_s=violation.at_s + _AFTER_S, faults=faults))

    def _drop_faults(self) -> None:
        """Delta debugging: leave parts out, halves first, for as long as it still breaks."""
        parts = 2
        while self._left > 0 and (faults := self._best.case.faults):
            size = -(-len(faults) // parts)
            for start in range(0, len(faults), size):
                rest = (*faults[:start], *faults[start + size :])
                if self._try(self._best.case.with_faults(rest)):
                    parts = max(parts - 1, 2)
                    break
            else:
                if size == 1:
                    return
                parts = min(parts * 2, len(faults))

    def _try(self, case: Case) -> bool:
        """Play `case`; it is the best from now on if the same invariant breaks."""
        if self._left <= 0 or case == self._best.case:
            return False
        self._left -= 1
        outcome = self._played(case)
        assert self._best.violation is not None
        if outcome.violation is None or outcome.violation.invariant != self._best.violation.invariant:
            return False
        self._best = outcome
        return True


def faults_as_text(faults: tuple[Fault, ...]) -> str:
    """One fault a line."""
    return "\n".join(f"  {fault}" for fault in faults) or "  none"
