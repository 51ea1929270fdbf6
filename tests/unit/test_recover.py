"""What a new worker makes of what an earlier one left behind, in virtual time."""

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import pytest

from localai_worker.adapters.memory.backend import FakeBackend
from localai_worker.adapters.memory.backend_client import InMemoryBackendClient
from localai_worker.adapters.memory.custody import InMemoryKeeper, InMemoryStateLock
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.loop_clock import LoopClock
from localai_worker.adapters.memory.machine import FakeProcess, FakeProgram, InMemoryMachine
from localai_worker.adapters.memory.network import InMemoryNetwork
from localai_worker.adapters.memory.oom import InMemoryOomKills
from localai_worker.adapters.memory.outputs import InMemoryOutputFiles
from localai_worker.adapters.memory.processes import InMemoryProcesses
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.allocate_ports import PortPool
from localai_worker.domain.backend import ReplicaKey
from localai_worker.domain.backend_logs import BackendLogs
from localai_worker.domain.collect_output import CollectOutput
from localai_worker.domain.custody import Custody
from localai_worker.domain.deaths import Deaths
from localai_worker.domain.ports.processes import ProcessExit, ProcessSpec, launch_mark
from localai_worker.domain.process_journal import ProcessJournal
from localai_worker.domain.process_table import RunningReplica
from localai_worker.domain.recover import RecoverBackends, Recovered
from localai_worker.domain.start_backend import BackendStarter
from localai_worker.domain.stop_group import StopLadder
from localai_worker.domain.supervise import Supervisor

STATE = Path("/node/state")
BACKENDS = Path("/node/backends")
LOGS = Path("/node/logs")
QWEN, PHI = ReplicaKey("qwen"), ReplicaKey("phi", 1)
PORTS = range(50051, 50060)


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@dataclass(frozen=True)
class Installed:
    name: str

    @property
    def run_file(self) -> Path:
        return BACKENDS / self.name / "run.sh"


@dataclass
class Life:
    """One worker's life, as far as it deals with backends."""

    supervisor: Supervisor
    recovery: RecoverBackends
    custody: Custody
    recovered: Recovered

    async def start(self, key: ReplicaKey, backend: str = "llama-cpp") -> RunningReplica:
        await self.supervisor.start(key, Installed(backend), frozenset({backend}))
        await self.until_noted(key)  # the reply is out before the journal knows that it is ready
        return self.replica(key)

    async def until_noted(self, key: ReplicaKey) -> None:
        with anyio.fail_after(1):
            while not any(each.key == key and each.ready for each in await self.recovery.journal.read()):
                await anyio.sleep(0.001)

    def replica(self, key: ReplicaKey) -> RunningReplica:
        return next(replica for replica in self.supervisor.replicas if replica.key == key)


@dataclass
class Node:
    """A machine and its disk; workers come and go."""

    machine: InMemoryMachine = field(default_factory=InMemoryMachine)
    filesystem: InMemoryFileSystem = field(default_factory=InMemoryFileSystem)
    programs: dict[str, FakeProgram] = field(default_factory=dict)
    ports: range = PORTS

    def __post_init__(self) -> None:
        self.install("llama-cpp", FakeProgram(listens_after_s=1))

    def install(self, name: str, program: FakeProgram) -> None:
        self.programs[name] = program
        self.filesystem.put(BACKENDS / name / "run.sh", b"#!/bin/sh\n")

    @property
    def journal(self) -> ProcessJournal:
        return ProcessJournal(self.filesystem, STATE / "processes")

    @property
    def processes(self) -> InMemoryProcesses:
        return InMemoryProcesses(self.machine, self.programs)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Life]:
        """A worker from its start to its SIGKILL: it does nothing any more when the block ends."""
        custody = Custody(
            InMemoryStateLock(self.machine, STATE), InMemoryKeeper(self.machine, STATE, window_s=120)
        )
        client = InMemoryBackendClient(self.machine)
        ports = PortPool(self.ports)
        supervisor = Supervisor(
            starter=BackendStarter(
                processes=self.processes,
                client=client,
                filesystem=self.filesystem,
                deaths=Deaths(LoopClock(), InMemoryOomKills(self.machine)),
                output=CollectOutput(InMemoryOutputFiles(self.machine), BackendLogs(), LoopClock(), LOGS),
                environment={},
                output_directory=LOGS,
                next_mark=custody.next_mark,
            ),
            client=client,
            filesystem=self.filesystem,
            network=InMemoryNetwork(self.machine),
            ports=ports,
            ladder=StopLadder(),
            journal=self.journal,
        )
        recovery = RecoverBackends(
            custody, self.journal, self.processes, client, supervisor, ports, health_s=5
        )
        await custody.take()
        async with supervisor.running():
            yield Life(supervisor, recovery, custody, await recovery.run())
            supervisor.table.entries.clear()  # its memory is gone
        self.machine.worker_died(STATE)

    async def record_names(self) -> list[str]:
        if await self.filesystem.stat(self.journal.directory) is None:
            return []
        entries = await self.filesystem.list_directory(self.journal.directory)
        return [entry.name for entry in entries]

    def process(self, pid: int) -> FakeProcess:
        return next(process for process in self.machine.processes if process.pid == pid)


@pytest.fixture
def node() -> Node:
    return Node()


async def test_nothing_left_behind_is_nothing_to_tell(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with node.worker() as life:
            assert not life.recovered
    assert caplog.text == ""


async def test_healthy_backends_are_taken_over_with_pid_and_port(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """G-W8: their memory never moved, and the next install gets the old address at once."""
    async with node.worker() as life:
        before = [await life.start(QWEN), await life.start(PHI)]
    with caplog.at_level(logging.INFO):
        async with node.worker() as life:
            assert sorted(map(str, life.recovered.adopted)) == ["phi#1", "qwen#0"]
            assert [life.replica(key) for key in (QWEN, PHI)] == before
            began_s = anyio.current_time()
            assert await life.start(QWEN) == before[0]
            assert anyio.current_time() == began_s, "nothing was waited for"
            third = await life.start(ReplicaKey("third"))
            assert third.port not in {replica.port for replica in before}
    assert len(node.machine.processes) == 3
    assert f"backend adopted: replica=qwen#0 backend=llama-cpp pid={before[0].pid}" in caplog.text
    assert "recovered: adopted=2 ended=0 gone=0 orphans=0" in caplog.text


async def test_taken_over_again_and_again(node: Node) -> None:
    async with node.worker() as life:
        first = await life.start(QWEN)
    for _ in range(5):
        async with node.worker() as life:
            assert life.replica(QWEN) == first
    assert await node.record_names() == [f"{first.pid}.json"]


async def test_an_adopted_backend_is_stopped_like_any_other(node: Node) -> None:
    async with node.worker() as life:
        before = await life.start(QWEN)
    async with node.worker() as life:
        stopped = await life.supervisor.stop(QWEN)
        assert stopped is not None
        assert stopped.freed
        assert not node.machine.running
        after = await life.start(PHI)
        assert after.port != before.port, "the port rests (S-W31)"
        await anyio.sleep(15)
        assert await node.record_names() == [f"{after.pid}.json"]


async def test_a_port_goes_on_resting_when_the_worker_is_killed(node: Node) -> None:
    """S-W31: the record stays while the port rests, so the next worker knows of it.

    A worker that resumes does not register, and the frontend's row may still name the port.
    """
    async with node.worker() as life:
        before = await life.start(QWEN)
        await life.supervisor.stop(QWEN)
        (record,) = await node.journal.read()
    assert await node.record_names() == [], "a worker that goes in good order leaves none"
    await node.journal.keep(record)  # as one that was killed
    async with node.worker() as life:
        assert (await life.start(PHI)).port != before.port


async def test_after_an_orphan_no_port_is_given_out_before_it_has_rested(node: Node) -> None:
    """Which port it had is in no journal."""
    async with node.worker() as life:
        broken = await life.start(QWEN)
    node.filesystem.put(node.journal.directory / f"{broken.pid}.json", b"")
    async with node.worker() as life:
        assert life.recovered.orphans == [broken.pid]
        gone_s = node.process(broken.pid).gone_s
        assert gone_s is not None
        await life.start(PHI)
        assert node.machine.processes[-1].started_s - gone_s >= 15


async def test_the_death_of_an_adopted_backend_is_noticed_though_nobody_knows_how(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """G-W12: it is not our child, so there is no exit code, and the log says so."""
    async with node.worker() as life:
        before = await life.start(QWEN)
    async with node.worker() as life:
        node.process(before.pid).end(ProcessExit(code=3))
        await anyio.sleep(1)
        assert life.supervisor.replicas == ()
        await anyio.sleep(15)  # the record stays while the port rests
        assert await node.record_names() == []
    assert "backend died: replica=qwen#0" in caplog.text
    assert "exit code unknown" in caplog.text


async def test_a_backend_whose_directory_was_replaced_meanwhile_is_not_handed_out(node: Node) -> None:
    """G-F6, S-W17: the journal remembers which directory it was started from."""
    async with node.worker() as life:
        before = await life.start(QWEN)
    await node.filesystem.remove_tree(BACKENDS / "llama-cpp")
    node.install("llama-cpp", FakeProgram())
    async with node.worker() as life:
        assert life.recovered.adopted == [QWEN]
        after = await life.start(QWEN)
        assert after.pid != before.pid


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (FakeProgram(backend=FakeBackend(health="LOADING")), "'LOADING'"),
        (FakeProgram(listens_after_s=math.inf), "does not listen"),
        (FakeProgram(backend=FakeBackend(hangs=frozenset({"health"}))), "DEADLINE_EXCEEDED"),
    ],
)
async def test_what_is_ours_and_not_healthy_is_ended(
    node: Node, caplog: pytest.LogCaptureFixture, program: FakeProgram, why: str
) -> None:
    """It was starting when the worker was killed; whoever asked for it has given up."""
    node.install("slow", program)
    async with node.worker() as life:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(life.start, QWEN, "slow")
            await anyio.sleep(1)
            (record,) = await node.journal.read()
            assert not record.ready
            tasks.cancel_scope.cancel()
        # The cancelled start cleans up; a killed one does not.
        process = await node.processes.spawn(replace(node.machine.processes[0].spec, mark=record.mark))
        await node.journal.keep(replace(record, process=process.identity))
    async with node.worker() as life:
        assert life.recovered.ended == [QWEN]
        assert life.supervisor.replicas == ()
    assert not node.machine.running
    assert await node.record_names() == []
    assert f"backend not adopted, ending it: replica=qwen#0 pid={process.pid}" in caplog.text
    assert why in caplog.text


async def test_one_that_is_busy_is_taken_over(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """N-878a0d00a: many backends answer nothing while they compute; to end one would cut a request."""
    async with node.worker() as life:
        before = await life.start(QWEN)
    node.process(before.pid).backend.hangs = frozenset({"health"})
    async with node.worker() as life:
        assert life.replica(QWEN) == before
    assert "taken for busy: replica=qwen#0" in caplog.text


async def test_one_that_became_ready_meanwhile_is_taken_over(node: Node) -> None:
    async with node.worker() as life:
        before = await life.start(QWEN)
    (record,) = await node.journal.read()
    await node.journal.keep(replace(record, ready=False))
    async with node.worker() as life:
        assert life.replica(QWEN) == before
        (record,) = await node.journal.read()
        assert record.ready


async def test_a_stranger_on_its_port_is_neither_taken_for_it_nor_touched(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """N-B16, G-W16: it answers Health with OK, and is somebody else's all the same."""
    async with node.worker() as life:
        before = await life.start(QWEN)
    stranger = FakeBackend()
    node.machine.strangers[before.port] = stranger
    async with node.worker() as life:
        assert life.recovered.ended == [QWEN]
        assert not node.machine.running
        assert node.machine.listener(before.port) is stranger
        assert stranger.freed == 0
        await anyio.sleep(20)  # the rest of the port is over
        assert (await life.start(QWEN)).port != before.port
    assert f"another program listens on its port {before.port}" in caplog.text


async def test_a_process_that_got_the_number_of_ours_is_left_alone(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """N-B37, G-W11: the number alone proves nothing."""
    async with node.worker() as life:
        before = await life.start(QWEN)
    node.process(before.pid).end(ProcessExit(code=0))
    spec = ProcessSpec(Path("/usr/bin/other"), (), {}, Path("/tmp/out"), Path("/tmp/err"))
    await anyio.sleep(1)
    other = node.machine.start(spec, FakeProgram())
    other.pid = before.pid
    async with node.worker() as life:
        assert life.recovered.gone == [QWEN]
        assert life.supervisor.replicas == ()
    assert node.machine.running == (other,)
    assert await node.record_names() == []
    assert f"backend is gone, it ended while no worker ran: replica=qwen#0 pid={before.pid}" in caplog.text


async def test_after_a_reboot_nothing_is_taken_over(node: Node) -> None:
    async with node.worker() as life:
        await life.start(QWEN)
    node.machine.reboot()
    async with node.worker() as life:
        assert life.recovered.gone == [QWEN]
        assert await node.record_names() == []


async def test_the_port_of_one_that_is_gone_rests(node: Node) -> None:
    """S-W31: the frontend's row may still name it."""
    async with node.worker() as life:
        before = await life.start(QWEN)
    node.machine.reboot()
    async with node.worker() as life:
        assert (await life.start(PHI)).port != before.port


async def test_what_the_journal_never_heard_of_is_found_by_its_mark_and_ended(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """G-W8: the worker was killed between the spawn and the journal."""
    async with node.worker() as life:
        kept = await life.start(QWEN)
        mark = await life.custody.next_mark()
        spec = node.process(kept.pid).spec
        lost = await node.processes.spawn(replace(spec, mark=mark))
        stranger = await node.processes.spawn(replace(spec, mark=launch_mark("somebody", "1")))
    async with node.worker() as life:
        assert life.recovered.orphans == [lost.pid]
        assert life.replica(QWEN) == kept
    assert {process.pid for process in node.machine.running} == {kept.pid, stranger.pid}
    assert f"orphan of an earlier worker, ending it: process_group={lost.pid}" in caplog.text


async def test_what_a_dead_backend_left_in_its_group_is_ended(node: Node) -> None:
    """N-B8: its leader is gone, so only the mark tells whose it is."""
    node.install("ray", FakeProgram(child_outlives=True))
    async with node.worker() as life:
        before = await life.start(QWEN, "ray")
    node.process(before.pid).end(ProcessExit(code=0))
    assert node.process(before.pid).group_alive()
    async with node.worker() as life:
        assert life.recovered.gone == [QWEN]
        assert life.recovered.orphans == [before.pid]
    assert not node.process(before.pid).group_alive()


async def test_a_journal_that_cannot_be_read_leaves_no_orphan(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    async with node.worker() as life:
        broken, whole = await life.start(QWEN), await life.start(PHI)
    node.filesystem.put(node.journal.directory / f"{broken.pid}.json", b'{"version":1,"key"')
    async with node.worker() as life:
        assert life.replica(PHI) == whole
        assert life.recovered.orphans == [broken.pid]
    assert [process.pid for process in node.machine.running] == [whole.pid]
    assert "journal record unreadable, kept as" in caplog.text


async def test_of_two_records_of_one_replica_one_is_adopted_and_the_other_process_ended(node: Node) -> None:
    async with node.worker() as life:
        first = await life.start(QWEN)
        other = await life.start(PHI)
    records = {record.key: record for record in await node.journal.read()}
    await node.journal.keep(replace(records[PHI], key=QWEN))
    async with node.worker() as life:
        assert life.recovered.adopted == [QWEN]
        (running,) = node.machine.running
        assert life.replica(QWEN).pid == running.pid
        assert await node.record_names() == [f"{running.pid}.json"]
    assert {first.pid, other.pid} - {running.pid} == set(life.recovered.orphans)


async def test_one_that_survives_keeps_its_port_and_is_told(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.install("hung", FakeProgram(held_by_kernel=True))
    async with node.worker() as life:
        before = await life.start(QWEN, "hung")
    node.process(before.pid).backend.health = "LOADING"
    async with node.worker() as life:
        assert life.supervisor.replicas == ()
        assert life.supervisor.table.port_of(QWEN) == before.port
        assert await node.record_names() == [f"{before.pid}.json"]
    assert "still runs" in caplog.text


async def test_a_port_outside_the_range_of_now_is_not_kept(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """The firewall is open for the new range only."""
    async with node.worker() as life:
        before = await life.start(QWEN)
    node.ports = range(60000, 60010)
    async with node.worker() as life:
        assert life.recovered.ended == [QWEN]
    assert f"its port {before.port} is outside the range 60000-60009 of now" in caplog.text


async def test_the_keeper_watches_over_what_was_taken_over(node: Node) -> None:
    """D5: the worker that adopted is killed in its turn, and nobody comes back."""
    async with node.worker() as life:
        before = await life.start(QWEN)
    await anyio.sleep(119)
    async with node.worker() as life:
        assert life.replica(QWEN) == before
        await anyio.sleep(1000)
    await anyio.sleep(119)
    assert node.machine.running
    await anyio.sleep(2)
    assert not node.machine.running
    async with node.worker() as life:
        assert life.recovered.gone == [QWEN]


async def test_the_output_of_an_adopted_backend_is_not_taken_for_an_old_one(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that starts makes room among output files before it knows whose they are."""
    monkeypatch.setattr("localai_worker.domain.collect_output._OUTPUT_BYTES", 0)
    node.install("loud", FakeProgram(stderr="a line\n"))
    async with node.worker() as life:
        before = await life.start(QWEN, "loud")
    path = node.process(before.pid).spec.stderr
    async with node.worker():
        await anyio.sleep(1)
        assert node.machine.outputs[path] == "a line\n"


# leaving with backends up


async def test_a_worker_that_leaves_its_backends_up_ends_only_what_was_starting(node: Node) -> None:
    node.install("slow", FakeProgram(listens_after_s=20))
    async with node.worker() as life:
        kept = await life.start(QWEN)
        async with anyio.create_task_group() as tasks:

            async def start_slow() -> None:
                with pytest.raises(Exception, match="stopped during startup"):
                    await life.start(PHI, "slow")

            tasks.start_soon(start_slow)
            await anyio.sleep(1)
            life.supervisor.leave_running()
            await life.supervisor._stop_unready()
    assert [process.pid for process in node.machine.running] == [kept.pid]
    async with node.worker() as life:
        assert life.recovered.adopted == [QWEN]
