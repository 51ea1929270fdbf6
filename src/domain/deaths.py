"""Deaths that nobody asked for: what is known of them, who is told, and when to try again."""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import anyio

from .backend import ReplicaKey
from .crash_loops import CrashLoops, Pause, Program
from .durations import spoken
from .errors import WorkerError
from .ports.clock import Clock
from .ports.oom import OomKills
from .ports.processes import ProcessExit

_SIGKILL = 9
_SHELL_KILLED = 128 + _SIGKILL  # what a run.sh answers that waits for its server instead of exec'ing it
_KEPT = 200  # deaths remembered, of different replicas
_SUMMARY_CHARACTERS = 300  # of the last stderr line in a summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """The end of a process that nobody asked for.

    `uptime_s` counts from its start, or from its adoption; `stderr` are its last lines; `out_of_memory`
    is what the kernel's count of such kills says.
    """

    key: ReplicaKey
    pid: int
    how: ProcessExit
    at: datetime
    uptime_s: float
    out_of_memory: bool
    stderr: str

    @property
    def verdict(self) -> str:
        """How it ended, in one line: exit code or signal, whether memory ran out, and after how long."""
        why = str(self.how)
        if self.out_of_memory:
            why += ": out of memory, the kernel ended it; give it less to load or the node more RAM"
        elif self.how.signal == _SIGKILL:
            why += ", by somebody else or the kernel"
        return f"{why}, after {spoken(self.uptime_s)}"

    @property
    def last_line(self) -> str:
        """The last line of stderr, bounded."""
        lines = self.stderr.splitlines()
        return lines[-1][:_SUMMARY_CHARACTERS] if lines else ""

    def __str__(self) -> str:
        at = self.at.isoformat(sep=" ", timespec="seconds")
        said = f"; last stderr: {self.last_line!r}" if self.last_line else ""
        return f"process {self.pid} of {self.key} died at {at}: {self.verdict}{said}"


@dataclass(eq=False)
class CrashLoop(WorkerError):
    """A replica's process keeps dying, so the next try waits."""

    key: ReplicaKey
    pause: Pause
    next_try: datetime
    last: Death | None

    def __str__(self) -> str:
        text = (
            f"backend process {self.key} died {self.pause.deaths} times in {spoken(self.pause.span_s)}, "
            f"next try at {self.next_try.isoformat(sep=' ', timespec='seconds')} "
            f"(in {spoken(self.pause.left_s)}; a reinstall or upgrade of the backend is tried at once)"
        )
        if self.last is None:
            return text
        return f"{text}. The last time: {self.last.verdict}. Last stderr:\n{self.last.stderr or '(nothing)'}"


@dataclass
class Deaths:
    """Establishes and remembers deaths. One that no reply has told yet is kept for the next one.

    Memory running out shows as a kill that the kernel counted and no earlier death accounts for.
    """

    clock: Clock
    oom: OomKills
    loops: CrashLoops = field(default_factory=CrashLoops)
    _last: OrderedDict[ReplicaKey, Death] = field(default_factory=OrderedDict)
    _untold: set[ReplicaKey] = field(default_factory=set)
    _explained: int = 0  # kills of the kernel that deaths already account for

    def establish(
        self,
        key: ReplicaKey,
        *,
        pid: int,
        how: ProcessExit,
        uptime_s: float,
        kills_before: int | None,
        stderr: str,
    ) -> Death:
        """What is known of a death right after it; `kills_before` is the kernel's count at its start."""
        return Death(
            key=key,
            pid=pid,
            how=how,
            at=self.clock.now(),
            uptime_s=uptime_s,
            out_of_memory=_may_be_a_kill(how) and self._counted(kills_before),
            stderr=stderr,
        )

    def remember(self, death: Death, program: Program, *, healthy_for_s: float, told: bool) -> None:
        """Keep `death`; `told` says that a reply is about to tell it."""
        self.loops.died(death.key, program, healthy_for_s=healthy_for_s, now_s=anyio.current_time())
        self._last[death.key] = death
        self._last.move_to_end(death.key)
        self._untold.discard(death.key) if told else self._untold.add(death.key)
        if len(self._last) > _KEPT:
            oldest, _ = self._last.popitem(last=False)
            self._untold.discard(oldest)

    def check(self, key: ReplicaKey, program: Program) -> None:
        """Return when `key` may be started.

        Raises:
            CrashLoop: its process keeps dying; says when the next try may be.
        """
        pause = self.loops.pause(key, program, now_s=anyio.current_time())
        if pause is not None:
            self._untold.discard(key)
            next_try = self.clock.now() + timedelta(seconds=pause.left_s)
            raise CrashLoop(key, pause, next_try, self._last.get(key))

    def untold(self, key: ReplicaKey) -> Death | None:
        """The death of `key`'s last process, if no reply has told it yet; now this one does."""
        if key not in self._untold:
            return None
        self._untold.discard(key)
        return self._last[key]

    @property
    def recent(self) -> tuple[Death, ...]:
        """The last death of each replica, the latest first."""
        return tuple(reversed(self._last.values()))

    @property
    def worries(self) -> tuple[str, ...]:
        """For whoever asks how the node is, without names: anybody may ask."""
        paused = self.loops.paused(now_s=anyio.current_time())
        return (f"{len(paused)} backend(s) keep dying, their next start waits",) if paused else ()

    def _counted(self, kills_before: int | None) -> bool:
        kills = self.oom.count()
        if kills is None or kills_before is None:
            return False
        accounted_for = max(kills_before, self._explained)
        if kills <= accounted_for:
            return False
        self._explained = accounted_for + 1
        return True


def _may_be_a_kill(how: ProcessExit) -> bool:
    unknown = how.code is None and how.signal is None
    return unknown or how.signal == _SIGKILL or how.code == _SHELL_KILLED
