"""The promises of the `Processes` port, held by real processes and by the in-memory machine alike."""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import anyio
import pytest

from localai_worker.adapters.memory.backend import FakeBackend
from localai_worker.adapters.memory.machine import FakeProgram, InMemoryMachine
from localai_worker.adapters.memory.processes import InMemoryProcesses
from localai_worker.adapters.processes.local import LocalProcesses
from localai_worker.domain.errors import SpawnFailed
from localai_worker.domain.ports.processes import (
    Listening,
    Process,
    Processes,
    ProcessExit,
    ProcessIdentity,
    ProcessSpec,
    StopSignal,
    launch_mark,
)
from tests.servers import free_port

_LISTENER = """
import socket, sys, time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", int(sys.argv[sys.argv.index("--addr") + 1].rpartition(":")[2])))
listener.listen()
time.sleep(60)
"""


class Stage(Protocol):
    """Prepares programs of a given behaviour, and makes sure that nothing outlives the test."""

    @property
    def processes(self) -> Processes: ...

    def program(self, name: str) -> ProcessSpec:
        """`sleeps`, `fails` (exit 3, two lines on stderr), `stubborn` (ignores TERM), `leaves_child`,
        `listens`, `listens_in_child`, `computes`, `prints`, `missing`; each is given `--addr 0.0.0.0:<port>`.
        """

    def output(self, path: Path) -> str: ...

    def occupy(self, port: int) -> None:
        """Have another program listen on `port`."""

    def port_of(self, spec: ProcessSpec) -> int: ...


_SCRIPTS = {
    "sleeps": "exec sleep 60",
    "fails": "echo first >&2; echo 'last \033[31mred\033[0m words' >&2; exit 3",
    "stubborn": "trap '' TERM; echo up; while :; do sleep 1; done",
    "leaves_child": "(trap '' TERM; echo up; exec sleep 60) & sleep 60",
    "listens": f'exec {sys.executable} listen.py "$@"',
    "listens_in_child": f'{sys.executable} listen.py "$@" & wait',
    "computes": "while :; do :; done",
    "prints": "echo up; sleep 60",
}


@dataclass
class LocalStage:
    directory: Path
    processes: LocalProcesses = field(default_factory=LocalProcesses)
    occupants: list[int] = field(default_factory=list)

    def program(self, name: str) -> ProcessSpec:
        home = self.directory / name
        home.mkdir(exist_ok=True)
        if name in _SCRIPTS:
            (home / "run.sh").write_text(f"#!/bin/sh\n{_SCRIPTS[name]}\n")
            (home / "listen.py").write_text(_LISTENER)
        return _spec(home)

    def output(self, path: Path) -> str:
        return path.read_text() if path.exists() else ""

    def occupy(self, port: int) -> None:
        self.occupants.append(
            os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", _LISTENER, "--addr", f":{port}"])
        )

    def port_of(self, spec: ProcessSpec) -> int:
        return int(spec.arguments[1].rpartition(":")[2])


@dataclass
class MemoryStage:
    directory: Path
    machine: InMemoryMachine = field(default_factory=InMemoryMachine)
    processes: InMemoryProcesses = field(init=False)

    def __post_init__(self) -> None:
        never = float("inf")
        self.processes = InMemoryProcesses(
            self.machine,
            {
                "sleeps": FakeProgram(listens_after_s=never),
                "fails": FakeProgram(exits_after_s=0, exit_code=3, stderr="first\nlast red words\n"),
                "stubborn": FakeProgram(listens_after_s=never, term_s=never),
                "leaves_child": FakeProgram(listens_after_s=never, child_outlives=True),
                "listens": FakeProgram(),
                "listens_in_child": FakeProgram(),
                "computes": FakeProgram(busy_s=never),
                "prints": FakeProgram(stderr="up\n"),
            },
        )

    def program(self, name: str) -> ProcessSpec:
        return _spec(self.directory / name)

    def output(self, path: Path) -> str:
        return self.machine.outputs.get(path, "")

    def occupy(self, port: int) -> None:
        self.machine.strangers[port] = FakeBackend()

    def port_of(self, spec: ProcessSpec) -> int:
        return int(spec.arguments[1].rpartition(":")[2])


OWNER = f"{os.getpid():032x}"


def _marked(spec: ProcessSpec, launch: str = "1") -> ProcessSpec:
    return replace(spec, mark=launch_mark(OWNER, launch))


def _identity(process: Process) -> ProcessIdentity:
    assert process.identity is not None
    return process.identity


def _spec(home: Path) -> ProcessSpec:
    return ProcessSpec(
        program=home / "run.sh",
        arguments=("--addr", f"0.0.0.0:{free_port()}"),
        environment={"PATH": os.environ["PATH"], "GREETING": "hello"},
        stdout=home.parent / "logs" / f"{home.name}.out",
        stderr=home.parent / "logs" / f"{home.name}.err",
    )


Spawn = Callable[[ProcessSpec], Awaitable[Process]]


@pytest.fixture(params=["memory", "local"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    if request.param == "memory":
        yield MemoryStage(tmp_path)
        return
    local = LocalStage(tmp_path)
    yield local
    for pid in local.occupants:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.fixture
async def spawn(stage: Stage) -> AsyncIterator[Spawn]:
    """Starts processes and ends their groups after the test."""
    started: list[Process] = []

    async def start(spec: ProcessSpec) -> Process:
        process = await stage.processes.spawn(spec)
        started.append(process)
        return process

    yield start
    for process in started:
        process.signal_group(StopSignal.KILL)
        with anyio.fail_after(5):
            await process.wait()


async def _until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.01)


async def _until_up(stage: Stage, spec: ProcessSpec) -> None:
    """Return when a real script has set its traps; in memory a program is up at once."""
    if isinstance(stage, LocalStage):
        await _until(lambda: stage.output(spec.stdout) == "up\n")


async def _until_listening(process: Process, port: int) -> Listening:
    with anyio.fail_after(10):
        while (seen := await process.listening(port)) is Listening.NOBODY:
            await anyio.sleep(0.01)
    return seen


async def test_a_running_process_has_no_exit(stage: Stage, spawn: Spawn) -> None:
    process = await spawn(stage.program("sleeps"))
    assert process.exit is None
    assert process.group_alive()
    assert process.pid > 0


async def test_the_exit_code_and_the_last_words_of_a_failing_process_are_known(
    stage: Stage, spawn: Spawn
) -> None:
    spec = stage.program("fails")
    process = await spawn(spec)
    with anyio.fail_after(5):
        assert await process.wait() == ProcessExit(code=3)
    assert process.exit == ProcessExit(code=3)
    assert not process.group_alive()
    tail = await stage.processes.tail(spec.stderr, lines=20, limit_bytes=1024)
    assert tail == "first\nlast red words"


async def test_many_tasks_may_wait_for_one_process(stage: Stage, spawn: Spawn) -> None:
    process = await spawn(stage.program("sleeps"))
    seen: list[ProcessExit] = []

    async def wait() -> None:
        seen.append(await process.wait())

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(wait)
        await anyio.lowlevel.checkpoint()
        process.signal_group(StopSignal.TERM)
    assert seen == [ProcessExit(signal=15)] * 3


async def test_term_ends_a_willing_group_and_a_second_signal_is_no_error(stage: Stage, spawn: Spawn) -> None:
    process = await spawn(stage.program("sleeps"))
    process.signal_group(StopSignal.TERM)
    with anyio.fail_after(5):
        assert (await process.wait()).signal == 15
    process.signal_group(StopSignal.TERM)
    process.signal_group(StopSignal.KILL)
    assert not process.group_alive()


async def test_kill_ends_what_ignores_term(stage: Stage, spawn: Spawn) -> None:
    spec = stage.program("stubborn")
    process = await spawn(spec)
    await _until_up(stage, spec)
    process.signal_group(StopSignal.TERM)
    with anyio.move_on_after(0.05):
        await process.wait()
    assert process.exit is None
    process.signal_group(StopSignal.KILL)
    with anyio.fail_after(5):
        assert (await process.wait()).signal == 9
    await _until(lambda: not process.group_alive())


async def test_a_group_lives_as_long_as_any_member(stage: Stage, spawn: Spawn) -> None:
    """N-B8: a child that ignores TERM outlives its leader and still counts."""
    spec = stage.program("leaves_child")
    process = await spawn(spec)
    await _until_up(stage, spec)
    process.signal_group(StopSignal.TERM)
    with anyio.fail_after(5):
        await process.wait()
    assert process.group_alive()
    process.signal_group(StopSignal.KILL)
    await _until(lambda: not process.group_alive())


@pytest.mark.parametrize("name", ["listens", "listens_in_child"])
async def test_a_listener_of_the_process_or_its_children_is_its_own(
    stage: Stage, spawn: Spawn, name: str
) -> None:
    spec = stage.program(name)
    process = await spawn(spec)
    assert await _until_listening(process, stage.port_of(spec)) is Listening.OWN


async def test_nobody_listens_on_a_silent_port(stage: Stage, spawn: Spawn) -> None:
    spec = stage.program("sleeps")
    process = await spawn(spec)
    assert await process.listening(stage.port_of(spec)) is Listening.NOBODY


async def test_a_listener_of_another_program_is_foreign(stage: Stage, spawn: Spawn) -> None:
    """N-B16: whoever else answers on the port is not taken for the backend."""
    spec = stage.program("sleeps")
    stage.occupy(stage.port_of(spec))
    process = await spawn(spec)
    assert await _until_listening(process, stage.port_of(spec)) is Listening.FOREIGN


async def test_a_process_that_computes_uses_processor_time(stage: Stage, spawn: Spawn) -> None:
    process = await spawn(stage.program("computes"))
    with anyio.fail_after(30):
        while (await process.work()).cpu_s < 0.1:
            await anyio.sleep(0.05)


async def test_a_process_that_prints_has_output_and_a_sleeping_one_does_no_work(
    stage: Stage, spawn: Spawn
) -> None:
    printing = await spawn(stage.program("prints"))
    with anyio.fail_after(10):
        while (await printing.work()).output_bytes != 3:
            await anyio.sleep(0.01)
    before = await printing.work()
    await anyio.sleep(0.2)
    assert await printing.work() == before


async def test_a_missing_program_is_refused(stage: Stage) -> None:
    with pytest.raises(SpawnFailed) as caught:
        await stage.processes.spawn(stage.program("missing"))
    assert caught.value.program.name == "run.sh"
    assert "No such file" in str(caught.value)


async def test_output_of_an_earlier_process_is_kept_beside_the_new(stage: Stage, spawn: Spawn) -> None:
    spec = stage.program("fails")
    for _ in range(2):
        with anyio.fail_after(5):
            await (await spawn(spec)).wait()
    assert stage.output(spec.stderr).startswith("first")
    assert stage.output(spec.stderr).count("first") == 1
    assert stage.output(spec.stderr.with_name(spec.stderr.name + ".previous")).count("first") == 1


async def test_the_tail_is_bounded_in_lines_and_bytes(stage: Stage, spawn: Spawn) -> None:
    """N-B30: a backend that prints without end does not fill a reply."""
    spec = stage.program("fails")
    with anyio.fail_after(5):
        await (await spawn(spec)).wait()
    assert await stage.processes.tail(spec.stderr, lines=1, limit_bytes=1024) == "last red words"
    assert await stage.processes.tail(spec.stderr, lines=9, limit_bytes=6) == "words"
    assert await stage.processes.tail(spec.stderr.with_name("none"), lines=9, limit_bytes=6) == ""


async def test_a_living_process_is_found_by_its_identity_and_its_end_is_noticed(
    stage: Stage, spawn: Spawn
) -> None:
    """G-W11, N-B37: how it ended nobody tells, as it is not our child."""
    process = await spawn(stage.program("sleeps"))
    found = await stage.processes.find(_identity(process))
    assert found is not None
    assert (found.pid, found.identity, found.exit) == (process.pid, process.identity, None)
    assert found.group_alive()
    found.signal_group(StopSignal.TERM)
    with anyio.fail_after(5):
        assert await found.wait() == ProcessExit()
        await process.wait()
    assert found.exit == ProcessExit()
    assert str(found.exit) == "gone, exit code unknown"
    assert not found.group_alive()
    found.signal_group(StopSignal.KILL)


@pytest.mark.parametrize("name", ["listens", "listens_in_child"])
async def test_a_found_process_tells_who_listens(stage: Stage, spawn: Spawn, name: str) -> None:
    spec = stage.program(name)
    found = await stage.processes.find(_identity(await spawn(spec)))
    assert found is not None
    assert await _until_listening(found, stage.port_of(spec)) is Listening.OWN


async def test_what_is_not_the_very_process_is_not_found(stage: Stage, spawn: Spawn) -> None:
    """N-B37: a number that another process has now, or another run of the system gave, proves nothing."""
    process = await spawn(stage.program("sleeps"))
    identity = _identity(process)
    for other in (
        replace(identity, started=identity.started + 1),
        replace(identity, boot="another"),
        replace(identity, pid=2**22 + 1),
        replace(identity, pid=2**31 - 1),
    ):
        assert await stage.processes.find(other) is None
    process.signal_group(StopSignal.KILL)
    with anyio.fail_after(5):
        await process.wait()
    assert await stage.processes.find(identity) is None


async def test_a_mark_leads_to_every_group_that_carries_it(stage: Stage, spawn: Spawn) -> None:
    spec = _marked(stage.program("sleeps"), "7")
    process = await spawn(spec)
    await spawn(stage.program("sleeps"))
    (group,) = await stage.processes.marked(OWNER)
    assert group.mark == launch_mark(OWNER, "7")
    assert group.process.pid == process.pid
    assert await stage.processes.marked("somebody") == ()
    group.process.signal_group(StopSignal.KILL)
    with anyio.fail_after(5):
        await group.process.wait()
        await process.wait()
    assert await stage.processes.marked(OWNER) == ()


async def test_a_mark_leads_to_a_group_whose_leader_has_ended(stage: Stage, spawn: Spawn) -> None:
    """N-B8: what a backend left behind holds GPU memory too."""
    spec = _marked(stage.program("leaves_child"))
    process = await spawn(spec)
    await _until_up(stage, spec)
    process.signal_group(StopSignal.TERM)
    with anyio.fail_after(5):
        await process.wait()
    (group,) = await stage.processes.marked(OWNER)
    assert group.process.exit == ProcessExit()
    assert group.process.pid == process.pid
    assert group.process.group_alive()
    group.process.signal_group(StopSignal.KILL)
    await _until(lambda: not group.process.group_alive())
