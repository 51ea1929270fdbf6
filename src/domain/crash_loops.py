"""When a replica whose process keeps dying may be started again; pure, the caller brings the time."""

from dataclasses import dataclass, field
from pathlib import Path

from .backend import ReplicaKey


@dataclass(frozen=True, slots=True)
class Program:
    """What a replica ran: the same path in a directory that was replaced is another program."""

    run_file: Path
    directory_inode: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a replica is not started now: it died `deaths` times within `span_s`; next try in `left_s`."""

    deaths: int
    span_s: float
    left_s: float


@dataclass(slots=True)
class _Deaths:
    program: Program
    first_s: float
    last_s: float
    count: int = 1


@dataclass
class CrashLoops:
    """Counts deaths and spaces out the starts that follow them.

    The first `tolerated` deaths cost nothing: a frontend's retry may well succeed. From then on a start has
    to be `pause_s` seconds after the last death, and each further death doubles that, up to
    `longest_pause_s`. All is forgiven after `healthy_s` of health, `forget_s` after the last death, and when
    the program was replaced. Every time is seconds of one monotonic clock.
    """

    tolerated: int = 3
    pause_s: float = 10.0
    longest_pause_s: float = 300.0
    healthy_s: float = 600.0
    forget_s: float = 1800.0
    _deaths: dict[ReplicaKey, _Deaths] = field(default_factory=dict)

    def died(self, key: ReplicaKey, program: Program, *, healthy_for_s: float, now_s: float) -> None:
        """Count a death that nobody asked for, after `healthy_for_s` of being up."""
        self._forget_old(now_s)
        known = self._deaths.pop(key, None)
        if known is None or known.program != program or healthy_for_s >= self.healthy_s:
            self._deaths[key] = _Deaths(program, now_s, now_s)
            return
        known.count += 1
        known.last_s = now_s
        self._deaths[key] = known

    def pause(self, key: ReplicaKey, program: Program, *, now_s: float) -> Pause | None:
        """Why `key` must not be started from `program` now; None when it may."""
        self._forget_old(now_s)
        known = self._deaths.get(key)
        if known is None or known.program != program or known.count < self.tolerated:
            return None
        doubled = self.pause_s * 2.0 ** min(known.count - self.tolerated, 60)
        left_s = known.last_s + min(doubled, self.longest_pause_s) - now_s
        return Pause(known.count, known.last_s - known.first_s, left_s) if left_s > 0 else None

    def paused(self, *, now_s: float) -> tuple[ReplicaKey, ...]:
        """The replicas whose next start has to wait."""
        self._forget_old(now_s)
        known = tuple(self._deaths.items())
        return tuple(key for key, deaths in known if self.pause(key, deaths.program, now_s=now_s))

    def _forget_old(self, now_s: float) -> None:
        """The dictionary is in the order of the last deaths."""
        for key, known in list(self._deaths.items()):
            if now_s - known.last_s < self.forget_s:
                return
            del self._deaths[key]
