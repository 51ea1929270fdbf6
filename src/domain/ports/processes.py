"""Processes: backends run as children in process groups of their own, their output in files."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What to start.

    The program runs as `directory/program.name` with `directory` as working directory, stdin from the
    null device, and stdout and stderr appended to the two files. They start empty: what an earlier
    process left there last is kept beside as `<name>.previous`, its full part is removed; missing parents
    are created, mode 0700.
    `environment` is complete: nothing is inherited besides. A `mark` (see `launch_mark`) goes into it
    too; by it a process and whatever it starts is recognised after a crash of the worker.
    """

    program: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    stdout: Path
    stderr: Path
    mark: str = ""

    @property
    def directory(self) -> Path:
        """The working directory: where the program lies."""
        return self.program.parent


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Which process `pid` was, so that no other that gets the same number is ever taken for it.

    `started` is the kernel's own start time, `boot` names the run of the system that counts it (and the
    container, where process ids are counted in one); both only compare.
    """

    pid: int
    started: int
    boot: str


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """How a process ended: an exit code, or the number of the signal that killed it. Exactly one is set.

    Both are None where the system cannot tell (a process that is not our child).
    """

    code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by signal {self.signal}{_name_of(self.signal)}"
        return f"exit code {self.code}" if self.code is not None else "gone, exit code unknown"


@dataclass(frozen=True, slots=True)
class Work:
    """What a process group has done so far; a figure that the system does not tell stays 0."""

    cpu_s: float = 0.0  # of all cores together
    output_bytes: int = 0  # what lies in its output files


class Listening(Enum):
    """Who listens on a port, as seen from one process."""

    NOBODY = "nobody"
    OWN = "own"  # the process or a descendant of it
    FOREIGN = "foreign"  # somebody else
    UNKNOWN = "unknown"  # somebody; the platform does not say who


def _name_of(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal, or one this platform lacks
        return ""


class StopSignal(Enum):
    """The two signals of the stop ladder."""

    TERM = "term"
    KILL = "kill"


class Process(Protocol):
    """One started process and the group it leads."""

    @property
    def pid(self) -> int:
        """Process id, equal to the id of its process group."""

    @property
    def identity(self) -> ProcessIdentity | None:
        """What `Processes.find` finds it again by; None where the platform cannot tell."""

    @property
    def exit(self) -> ProcessExit | None:
        """How the leader ended; None while it lives."""

    async def wait(self) -> ProcessExit:
        """Return when the leader has ended; any number of tasks may wait."""

    def signal_group(self, signal: StopSignal) -> None:
        """Send `signal` to every member of the group; a group that is gone is no error."""

    def group_alive(self) -> bool:
        """True while any member of the group runs, the leader or one it left behind. Zombies do not count."""

    async def listening(self, port: int) -> Listening:
        """Who listens on TCP `port` of this machine. Cheap while nobody does: made to be polled."""

    async def work(self) -> Work:
        """What the group has done so far. While it works a figure grows; while it waits none does."""


@dataclass(frozen=True, slots=True)
class MarkedGroup:
    """A process group with a member that carries `mark`; `process` is its leader, which may be gone."""

    mark: str
    process: Process


class Processes(Protocol):
    """Starts processes. A process outlives its handle, and the worker: only `signal_group` ends it."""

    async def spawn(self, spec: ProcessSpec) -> Process:
        """Start `spec` in a new session and process group.

        A program without any execute bit is made executable first, for its owner and whoever may read it.
        Source: LocalAI pkg/model/process.go.

        Raises:
            SpawnFailed: the program is missing, not a file, or the system refused.
        """

    async def find(self, identity: ProcessIdentity) -> Process | None:
        """The living process of `identity`, whoever started it; None when it has ended or cannot be proven.

        Nobody tells how such a process ends: its exit has neither code nor signal.
        """

    async def marked(self, owner: str) -> tuple[MarkedGroup, ...]:
        """Every process group in which a mark of `owner` is found, the caller's own left out.

        Also those whose leader has ended, and those that left the group they were started in. A process
        that hides or overwrites its environment is not found.
        """

    async def tail(self, path: Path, *, lines: int, limit_bytes: int) -> str:
        """The last `lines` lines of an output file and its full part, from their last `limit_bytes` only.

        Undecodable bytes are replaced, control characters (colours) removed. A missing file gives "".
        """


def launch_mark(owner: str, launch: str) -> str:
    """The mark of one launch by `owner`; neither text has a dot."""
    return f"{owner}.{launch}"
