"""The promises of `StateLock` and `Keeper`, held by this machine and by the one in memory alike.

The worker that dies is a process of its own here: the kernel must be the one to let go of its lock.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import anyio
import pytest

from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.memory.custody import InMemoryKeeper, InMemoryStateLock
from localai_worker.adapters.memory.machine import FakeProgram, InMemoryMachine
from localai_worker.adapters.memory.processes import InMemoryProcesses
from localai_worker.adapters.processes.keeper import LocalKeeper
from localai_worker.adapters.processes.local import LocalProcesses
from localai_worker.adapters.processes.proc_table import all_processes
from localai_worker.adapters.processes.state_files import KEEPER_FILE, KEEPER_LOG, LOCK_FILE
from localai_worker.adapters.processes.state_lock import LocalStateLock
from localai_worker.domain.backend import ReplicaKey
from localai_worker.domain.errors import FileUnwritable
from localai_worker.domain.ports.keeper import Keeper
from localai_worker.domain.ports.processes import Process, Processes, ProcessSpec, StopSignal, launch_mark
from localai_worker.domain.ports.state_lock import StateInUse, StateLock, Tenure
from localai_worker.domain.process_journal import JournalRecord, ProcessJournal

WINDOW_S = 0.2
_WORKER = """
import anyio, sys
from pathlib import Path
from localai_worker.adapters.processes.state_lock import LocalStateLock

async def main():
    await LocalStateLock(Path(sys.argv[1]), float(sys.argv[2]), 0.5).take()
    print("taken", flush=True)
    await anyio.sleep(600)

anyio.run(main)
"""


class Stage(Protocol):
    """A state directory, with workers and keepers to come and go."""

    @property
    def processes(self) -> Processes: ...

    def lock(self) -> StateLock:
        """As another worker would have it."""

    def keeper(self) -> Keeper: ...

    def start_worker(self) -> None:
        """Have another worker take the directory."""

    def kill_worker(self) -> None: ...

    def program(self, name: str) -> ProcessSpec:
        """`sleeps`, or `stubborn`: it and its child ignore TERM."""


@dataclass
class LocalStage:
    directory: Path
    processes: LocalProcesses = field(default_factory=LocalProcesses)
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    keepers: list[LocalKeeper] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.directory / "parent" / "state"

    def lock(self) -> LocalStateLock:
        return LocalStateLock(self.state, WINDOW_S, 0.5)

    def keeper(self) -> LocalKeeper:
        keeper = LocalKeeper(self.state)
        self.keepers.append(keeper)
        return keeper

    def start_worker(self) -> None:
        worker = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(self.state), str(WINDOW_S)], stdout=subprocess.PIPE
        )
        self.workers.append(worker)
        assert worker.stdout is not None
        with worker.stdout:
            assert worker.stdout.readline() == b"taken\n"

    def kill_worker(self) -> None:
        self.workers[-1].kill()
        self.workers[-1].wait()

    def program(self, name: str) -> ProcessSpec:
        home = self.directory / name
        home.mkdir(exist_ok=True)
        script = {"sleeps": "exec sleep 60", "stubborn": "trap '' TERM; sleep 60 & wait"}[name]
        if not (home / "run.sh").exists():  # a shell may still be reading it
            (home / "run.sh").write_text(f"#!/bin/sh\n{script}\n")
        return _spec(home)


@dataclass
class MemoryStage:
    directory: Path
    machine: InMemoryMachine = field(default_factory=InMemoryMachine)
    processes: InMemoryProcesses = field(init=False)

    def __post_init__(self) -> None:
        never = float("inf")
        sleeps = FakeProgram(listens_after_s=never)
        stubborn = FakeProgram(listens_after_s=never, term_s=never, child_outlives=True)
        self.processes = InMemoryProcesses(self.machine, {"sleeps": sleeps, "stubborn": stubborn})

    def lock(self) -> InMemoryStateLock:
        return InMemoryStateLock(self.machine, self.directory)

    def keeper(self) -> InMemoryKeeper:
        return InMemoryKeeper(self.machine, self.directory, WINDOW_S)

    def start_worker(self) -> None:
        self.machine.worker_came(self.directory)

    def kill_worker(self) -> None:
        self.machine.worker_died(self.directory)

    def program(self, name: str) -> ProcessSpec:
        return _spec(self.directory / name)


def _spec(home: Path) -> ProcessSpec:
    logs = home.parent / "logs"
    return ProcessSpec(home / "run.sh", (), {"PATH": os.environ["PATH"]}, logs / "out", logs / "err")


@pytest.fixture(params=["memory", "local"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    if request.param == "memory":
        yield MemoryStage(tmp_path)
        return
    local = LocalStage(tmp_path)
    yield local
    for worker in local.workers:
        worker.kill()
        worker.wait()
    for keeper in local.keepers:
        if keeper._process is not None and keeper._process.exit is None:
            keeper._process.popen.kill()
            keeper._process.popen.wait()


@dataclass
class Backends:
    """Starts marked processes of a tenure, and ends them after the test."""

    stage: Stage
    started: list[Process] = field(default_factory=list)

    async def start(self, tenure: Tenure, name: str = "sleeps") -> Process:
        spec = self.stage.program(name)
        marked = ProcessSpec(
            spec.program,
            spec.arguments,
            spec.environment,
            spec.stdout,
            spec.stderr,
            launch_mark(tenure.owner, f"{tenure.run}-{len(self.started)}"),
        )
        self.started.append(await self.stage.processes.spawn(marked))
        return self.started[-1]


@pytest.fixture
async def backends(stage: Stage) -> AsyncIterator[Backends]:
    backends = Backends(stage)
    yield backends
    for process in backends.started:
        process.signal_group(StopSignal.KILL)
        with anyio.fail_after(5):
            await process.wait()


async def until_gone(process: Process) -> None:
    with anyio.fail_after(30):
        while process.group_alive():
            await anyio.sleep(0.02)


# the lock


async def test_a_directory_belongs_to_one_worker_at_a_time(stage: Stage) -> None:
    lock = stage.lock()
    first = await lock.take()
    await lock.release()
    await lock.release()
    second = await stage.lock().take()
    assert second.owner == first.owner, "the directory has one name for ever"
    assert second.run != first.run
    assert (first.first, second.first) == (True, False)
    assert "." not in first.owner + first.run


async def test_a_second_worker_is_refused_and_told_what_to_do(stage: Stage) -> None:
    stage.start_worker()
    with pytest.raises(StateInUse) as refused:
        await stage.lock().take()
    assert "LOCALAI_WORKER_STATE_PATH" in str(refused.value)
    assert "runs already" in str(refused.value)
    if isinstance(stage, LocalStage):
        assert refused.value.pid == stage.workers[0].pid


async def test_a_killed_worker_lets_go(stage: Stage) -> None:
    stage.start_worker()
    stage.kill_worker()
    with anyio.fail_after(10):
        await stage.lock().take()


async def test_the_directory_is_made_for_the_worker_alone(tmp_path: Path) -> None:
    state = LocalStage(tmp_path).state
    await LocalStateLock(state, 1, 1).take()
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / LOCK_FILE).stat().st_mode & 0o777 == 0o600


async def test_a_place_where_no_lock_can_be_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileUnwritable, match="LOCALAI_WORKER_STATE_PATH"):
        await LocalStateLock(tmp_path / "file", 1, 1).take()


async def test_an_owner_that_is_no_name_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "owner").write_bytes(b"\xff../../etc.\n")
    owner = (await LocalStateLock(tmp_path, 1, 1).take()).owner
    assert len(owner) == 32
    assert (tmp_path / "owner").read_text() == owner


# the keeper


async def test_the_keeper_ends_what_no_worker_came_back_for(stage: Stage, backends: Backends) -> None:
    """G-W8, G-F20: also what ignores TERM, and the children it started; what is not ours lives on."""
    lock, keeper = stage.lock(), stage.keeper()
    tenure = await lock.take()
    await keeper.post()
    await keeper.post()
    ours = [await backends.start(tenure), await backends.start(tenure, "stubborn")]
    stranger = await backends.start(Tenure("somebody", "else"))
    await lock.release()
    for process in ours:
        await until_gone(process)
    assert stranger.group_alive()


async def test_a_worker_that_comes_back_in_time_keeps_its_backends(stage: Stage, backends: Backends) -> None:
    lock, keeper = stage.lock(), stage.keeper()
    tenure = await lock.take()
    await keeper.post()
    process = await backends.start(tenure)
    await lock.release()
    await stage.lock().take()
    await anyio.sleep(4 * WINDOW_S)  # nothing must happen, and nothing tells when it has not
    assert process.group_alive()


async def test_what_the_journal_names_ends_without_a_mark_and_nothing_else_does(tmp_path: Path) -> None:
    """A backend may overwrite its environment, as setproctitle does; a number alone proves nothing."""
    stage = LocalStage(tmp_path)
    backends = Backends(stage)
    lock, keeper = stage.lock(), stage.keeper()
    await lock.take()
    await keeper.post()
    processes = [await backends.start(Tenure("somebody", "else")) for _ in range(3)]
    ours, other_start, other_boot = (process.identity for process in processes)
    assert ours is not None
    assert other_start is not None
    assert other_boot is not None
    journal = ProcessJournal(LocalFileSystem(), stage.state / "processes")
    for identity in (
        ours,
        replace(other_start, started=other_start.started + 1),
        replace(other_boot, boot="another"),
    ):
        await journal.keep(
            JournalRecord(
                key=ReplicaKey("model"),
                backend="tiny",
                run_file=Path("/run.sh"),
                directory_inode=1,
                port=50051,
                process=identity,
            )
        )
    (stage.state / "processes" / "7.json").write_bytes(b'{"pid": 7, "started"')
    (stage.state / "processes" / "8.json").write_bytes(b"[]")
    await lock.release()
    await until_gone(processes[0])
    await until(stage.state, 0)
    assert [process.group_alive() for process in processes] == [False, True, True]
    assert not (stage.state / "processes" / f"{ours.pid}.json").exists()
    for process in processes[1:]:
        process.signal_group(StopSignal.KILL)
        with anyio.fail_after(5):
            await process.wait()


async def test_a_worker_that_comes_while_the_keeper_ends_things_waits_for_it(tmp_path: Path) -> None:
    """It must not adopt what is about to be killed."""
    stage = LocalStage(tmp_path)
    backends = Backends(stage)
    stage.start_worker()
    owner = (stage.state / "owner").read_text()
    keeper = stage.keeper()
    await keeper.post()
    process = await backends.start(Tenure(owner, "1"), "stubborn")
    stage.kill_worker()
    log = stage.state / KEEPER_LOG
    with anyio.fail_after(30):
        while "ending process groups" not in log.read_text():
            await anyio.sleep(0.01)
    with anyio.fail_after(30):
        await stage.lock().take()
    assert not process.group_alive()


async def test_a_state_directory_that_is_removed_costs_a_living_worker_nothing(tmp_path: Path) -> None:
    """Cleaners of temporary files do that. When the worker ends, its backends do too, by their marks."""
    stage = LocalStage(tmp_path)
    backends = Backends(stage)
    stage.start_worker()
    owner = (stage.state / "owner").read_text()
    await stage.keeper().post()
    process = await backends.start(Tenure(owner, "1"))
    with anyio.fail_after(30):
        while not (stage.state / KEEPER_FILE).exists():
            await anyio.sleep(0.02)
    await anyio.sleep(0.7)  # it has seen the worker
    shutil.rmtree(stage.state)
    await anyio.sleep(4 * WINDOW_S)  # nothing must happen, and nothing tells when it has not
    assert process.group_alive()
    stage.kill_worker()
    await until_gone(process)
    await until(stage.state, 0)


async def test_a_keeper_that_was_dismissed_ends_nothing(stage: Stage, backends: Backends) -> None:
    lock, keeper = stage.lock(), stage.keeper()
    tenure = await lock.take()
    await keeper.post()
    process = await backends.start(tenure)
    await keeper.dismiss()
    await keeper.dismiss()
    await lock.release()
    await anyio.sleep(2 * WINDOW_S)
    assert process.group_alive()


# the keeper as a process


def keepers_of(state: Path) -> list[int]:
    """The process ids of the living keepers of this directory."""
    found = []
    for process in all_processes():
        command = Path(f"/proc/{process.pid}/cmdline")
        if process.running and command.exists() and b"keeper_main\0" + bytes(state) in command.read_bytes():
            found.append(process.pid)
    return found


async def until(state: Path, count: int) -> list[int]:
    with anyio.fail_after(30):
        while len(found := keepers_of(state)) != count:
            await anyio.sleep(0.05)
    return found


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalStage]:
    stage = LocalStage(tmp_path)
    yield stage
    for keeper in stage.keepers:
        await keeper.dismiss()
    for worker in stage.workers:
        worker.kill()
        worker.wait()


async def test_a_newer_keeper_relieves_the_older_one(local: LocalStage) -> None:
    """One for each directory stays, however often the worker was killed."""
    lock = local.lock()
    await lock.take()
    await local.keeper().post()
    (first,) = await until(local.state, 1)
    with anyio.fail_after(30):
        while not (local.state / KEEPER_FILE).exists():
            await anyio.sleep(0.02)
    await local.keeper().post()
    with anyio.fail_after(30):
        while first in keepers_of(local.state):
            await anyio.sleep(0.05)
    await until(local.state, 1)


async def test_a_keeper_with_nothing_to_keep_leaves_with_the_worker(local: LocalStage) -> None:
    lock = local.lock()
    await lock.take()
    await local.keeper().post()
    await until(local.state, 1)
    await lock.release()
    await until(local.state, 0)


async def test_a_keeper_inherits_no_secret(local: LocalStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALAI_REGISTRATION_TOKEN", "s3cret")
    await local.lock().take()
    await local.keeper().post()
    (pid,) = await until(local.state, 1)
    assert b"s3cret" not in Path(f"/proc/{pid}/environ").read_bytes()


async def test_a_keeper_that_ends_at_once_is_told_and_not_posted_again_and_again(
    local: LocalStage, caplog: pytest.LogCaptureFixture
) -> None:
    local.state.mkdir(parents=True)  # nobody has named it: the keeper cannot work
    keeper = local.keeper()
    await keeper.post()
    with anyio.fail_after(30):
        while "no keeper" not in caplog.text:
            await anyio.sleep(0.02)
    assert "cannot tell whose processes" in (local.state / KEEPER_LOG).read_text()
    assert caplog.text.count("no keeper") == 1


async def test_a_lost_keeper_is_replaced(
    local: LocalStage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("localai_worker.adapters.processes.keeper._LIVES_S", 0.0)
    await local.lock().take()
    await local.keeper().post()
    (first,) = await until(local.state, 1)
    os.kill(first, signal.SIGKILL)
    with anyio.fail_after(30):
        while first in (found := keepers_of(local.state)) or not found:
            await anyio.sleep(0.05)
    assert "keeper lost, posting another" in caplog.text
