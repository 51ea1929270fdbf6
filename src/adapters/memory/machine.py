"""A machine that exists in memory: its processes, what they listen on and what they print.

Time is the event loop's (`anyio.current_time`), so a virtual clock moves it.
"""

import math
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

import anyio

from ...domain.ports.outputs import full_part
from ...domain.ports.processes import (
    Listening,
    ProcessExit,
    ProcessIdentity,
    ProcessSpec,
    StopSignal,
    Work,
)
from .backend import FakeBackend

_FIRST_PID = 1000
_TICKS_PER_S = 100  # as Linux counts start times


@dataclass(kw_only=True)
class FakeProgram:
    """What a fake run.sh does. Times are seconds after its start; `math.inf` is never.

    `backend` is served on the port of `--addr` from `listens_after_s` on; until `busy_s` it computes.
    `term_s` is how long the leader takes to obey TERM; `child_outlives` leaves a group member behind that
    only KILL ends; `child_escapes` starts one more process, which ignores TERM, in a group of its own;
    `held_by_kernel` has no signal take effect, as a hung device driver can.
    """

    backend: FakeBackend = field(default_factory=FakeBackend)
    listens_after_s: float = 0.0
    busy_s: float = 0.0
    exits_after_s: float = math.inf
    exit_code: int = 0
    stderr: str = ""
    term_s: float = 0.0
    child_outlives: bool = False
    child_escapes: bool = False
    held_by_kernel: bool = False


@dataclass(eq=False)
class FakeProcess:
    """A started `FakeProgram`; its state follows from the time, there is no task behind it."""

    machine: "InMemoryMachine"
    pid: int
    spec: ProcessSpec
    program: FakeProgram
    backend: FakeBackend
    started_s: float
    _ends_s: float
    _ended_as: ProcessExit
    kept_until_s: float = math.inf  # then the keeper ends its whole group
    _child_killed: bool = False
    _child_ended_s: float = 0.0
    _changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(self.pid, round(self.started_s * _TICKS_PER_S), self.machine.boot)

    @property
    def exit(self) -> ProcessExit | None:
        if self._ends_s == self.kept_until_s == math.inf:
            return None
        now_s = anyio.current_time()
        if now_s >= self._kept_until_s <= self._ends_s:
            return ProcessExit(signal=9)
        return self._ended_as if now_s >= self._ends_s else None

    async def wait(self) -> ProcessExit:
        while (ended := self.exit) is None:
            with anyio.move_on_after(min(self._ends_s, self._kept_until_s) - anyio.current_time()):
                await self._changed.wait()
        await anyio.lowlevel.checkpoint()
        return ended

    def signal_group(self, signal: StopSignal) -> None:
        if self.program.held_by_kernel:
            return
        if signal is StopSignal.KILL:
            if not self._child_killed:
                self._child_killed, self._child_ended_s = True, anyio.current_time()
            self.end(ProcessExit(signal=9))
        else:
            self.end(ProcessExit(signal=15), in_s=self.program.term_s)

    def end(self, how: ProcessExit, *, in_s: float = 0.0) -> None:
        """Let the leader end `in_s` seconds from now (a test crashes it here); an earlier end stays."""
        ends_s = anyio.current_time() + in_s
        if ends_s < self._ends_s:
            self._ends_s, self._ended_as = ends_s, how
            self._changed.set()
            self._changed = anyio.Event()

    def vanish(self) -> None:
        """End it with its whole group, as a reboot does."""
        self.end(ProcessExit(signal=9))
        self._child_killed = True

    @property
    def _kept_until_s(self) -> float:
        return math.inf if self.program.held_by_kernel else self.kept_until_s

    def group_alive(self) -> bool:
        child_left = self.program.child_outlives and not self._child_killed
        return self.exit is None or (child_left and anyio.current_time() < self._kept_until_s)

    @property
    def gone_s(self) -> float | None:
        """When the last member of its group ended; None while one lives."""
        if self.group_alive():
            return None
        child_s = self._child_ended_s if self._child_killed else self.kept_until_s
        leader_s = min(self._ends_s, self.kept_until_s)
        return max(leader_s, min(child_s, self.kept_until_s)) if self.program.child_outlives else leader_s

    async def listening(self, port: int) -> Listening:
        await anyio.lowlevel.checkpoint()
        owner = self.machine.listener(port)
        if owner is None:
            return Listening.NOBODY
        return Listening.OWN if owner is self.backend else Listening.FOREIGN

    async def work(self) -> Work:
        await anyio.lowlevel.checkpoint()
        lived_s = min(anyio.current_time(), self._ends_s) - self.started_s
        outputs = (self.machine.outputs.get(path, "") for path in {self.spec.stdout, self.spec.stderr})
        return Work(min(lived_s, self.program.busy_s), sum(len(text.encode()) for text in outputs))

    def print(self, text: str, *, stderr: bool = False) -> None:
        """Write `text` to one of its output files."""
        path = self.spec.stderr if stderr else self.spec.stdout
        self.machine.outputs[path] = self.machine.outputs.pop(path, "") + text  # the last written is last
        self.machine.wake_readers()

    @property
    def port(self) -> int:
        """The port of `--addr host:port`, as LocalAI starts every backend; 0 without one."""
        arguments = self.spec.arguments
        if "--addr" not in arguments:
            return 0
        return int(arguments[arguments.index("--addr") + 1].rpartition(":")[2])

    def serves(self, port: int) -> bool:
        """Whether its backend listens on `port` now."""
        ready_s = self.started_s + self.program.listens_after_s
        return self.exit is None and port == self.port and anyio.current_time() >= ready_s


@dataclass
class InMemoryMachine:
    """Processes and listeners that the in-memory adapters share.

    `strangers` are listeners of other programs: port to the backend that answers there (a test steals a
    port here). `connections` counts clients by the port they are connected to; None plays a machine that
    cannot tell. `oom_kills` is the kernel's count of processes ended for lack of memory, None likewise.
    Processes live on when the worker that started them is dropped.
    """

    processes: list[FakeProcess] = field(default_factory=list)
    strangers: dict[int, FakeBackend] = field(default_factory=dict)
    connections: dict[int, int] | None = field(default_factory=dict)
    outputs: dict[Path, str] = field(default_factory=dict)
    oom_kills: int | None = 0
    printed: anyio.Event = field(default_factory=anyio.Event)
    boots: int = 1
    started: int = 0  # processes, ever
    workers: dict[Path, int] = field(default_factory=dict)  # who holds a state directory
    keepers: dict[Path, float] = field(default_factory=dict)  # the adoption window of its keeper
    taken: set[Path] = field(default_factory=set)  # the state directories that were ever held
    _runs: int = 0

    def start(self, spec: ProcessSpec, program: FakeProgram) -> FakeProcess:
        """Run `program` as `spec` says; its stderr is there at once."""
        for path, text in ((spec.stdout, ""), (spec.stderr, program.stderr)):
            if path in self.outputs:
                self.outputs[path.with_name(path.name + ".previous")] = self.outputs[path]
            self.outputs[path] = text
            self.outputs.pop(full_part(path), None)
        process = self._add(spec, program)
        if program.child_escapes:
            self._add(replace(spec, arguments=()), FakeProgram(listens_after_s=math.inf, term_s=math.inf))
        return process

    def _add(self, spec: ProcessSpec, program: FakeProgram) -> FakeProcess:
        now_s = anyio.current_time()
        process = FakeProcess(
            self,
            _FIRST_PID + self.started,
            spec,
            program,
            program.backend.started(spec.environment),
            now_s,
            now_s + program.exits_after_s,
            ProcessExit(code=program.exit_code),
        )
        self.processes.append(process)
        self.started += 1
        return process

    def worker_came(self, directory: Path) -> int:
        """A worker takes the state directory, and with it what the keeper has not ended yet."""
        self._runs += 1
        self.workers[directory] = self._runs
        self.taken.add(directory)
        for process in self._left_behind(directory):
            process.kept_until_s = math.inf
        return self._runs

    def worker_died(self, directory: Path) -> None:
        """Nobody holds the state directory any more; with a keeper on duty its time begins to run."""
        self.workers.pop(directory, None)
        if (window_s := self.keepers.get(directory)) is not None:
            for process in self._left_behind(directory):
                process.kept_until_s = anyio.current_time() + window_s

    def _left_behind(self, directory: Path) -> list[FakeProcess]:
        owner = owner_of(directory)
        return [
            process
            for process in self.processes
            if process.spec.mark.startswith(f"{owner}.") and process.group_alive()
        ]

    def wake_readers(self) -> None:
        """Let those who wait for output look again."""
        self.printed.set()
        self.printed = anyio.Event()

    def kill_for_memory(self, process: FakeProcess) -> None:
        """Have the kernel end `process` because memory ran out."""
        if self.oom_kills is not None:
            self.oom_kills += 1
        process.end(ProcessExit(signal=9))

    def listener(self, port: int) -> FakeBackend | None:
        """Who answers on `port` now; a stranger wins, as it was there first."""
        if port in self.strangers:
            return self.strangers[port]
        return next((process.backend for process in self.processes if process.serves(port)), None)

    @property
    def boot(self) -> str:
        """Names the run of its system; another one after `reboot`."""
        return f"boot-{self.boots}"

    def reboot(self) -> None:
        """End every process with its whole group."""
        for process in self.processes:
            process.vanish()
        self.boots += 1
        self.workers.clear()
        self.keepers.clear()

    @property
    def running(self) -> tuple[FakeProcess, ...]:
        """The processes that live, oldest first."""
        return tuple(process for process in self.processes if process.exit is None)


def owner_of(directory: Path) -> str:
    """What the marks of this state directory begin with."""
    return blake2b(str(directory).encode(), digest_size=16).hexdigest()
