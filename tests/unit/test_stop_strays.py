"""What left the group of its backend ends with it: a whole worker in memory, in virtual time."""

from collections.abc import AsyncIterator

import anyio
import pytest

from localai_worker.adapters.memory.machine import FakeProgram, InMemoryMachine
from localai_worker.adapters.memory.processes import InMemoryProcesses
from localai_worker.app.testing import MemoryNode, memory_node
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.backend import ReplicaKey
from localai_worker.domain.ports.processes import MarkedGroup, ProcessExit
from localai_worker.domain.stop_group import StopLadder
from localai_worker.domain.stop_strays import StopStrays


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@pytest.fixture
async def node() -> AsyncIterator[MemoryNode]:
    async with memory_node() as node:
        node.offer("ray", FakeProgram(child_escapes=True))
        node.offer("plain")
        yield node


async def test_a_daemon_in_a_session_of_its_own_ends_with_its_backend(node: MemoryNode) -> None:
    """N-B8: it holds GPU memory as well as any member of the group does."""
    await node.install("ray", "a")
    await node.install("ray", "b")
    await node.install("plain", "c")
    assert len(node.machine.running) == 5
    began_s = anyio.current_time()
    await node.worker.supervisor.stop(ReplicaKey("a", 0))
    assert anyio.current_time() - began_s == pytest.approx(1, abs=0.1)
    assert [process.spec.directory.name for process in node.machine.running] == ["ray", "ray", "plain"]
    assert node.keys == ["b#0", "c#0"]


async def test_one_that_a_crash_left_behind_is_ended_at_once(node: MemoryNode) -> None:
    await node.install("ray", "a")
    leader, _ = node.machine.running
    leader.end(ProcessExit(signal=11))
    await anyio.sleep(2)
    assert node.machine.running == ()
    assert node.worker.supervisor.ports.leased == {}


async def test_stops_at_the_same_time_share_their_looks() -> None:
    """Each look walks through every process of the machine."""
    looks = 0

    class Counting(InMemoryProcesses):
        async def marked(self, owner: str) -> tuple[MarkedGroup, ...]:
            nonlocal looks
            looks += 1
            await anyio.sleep(0.01)
            return await super().marked(owner)

    strays = StopStrays(Counting(InMemoryMachine()))
    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(strays.end, ReplicaKey("m", number), f"me.{number}", StopLadder())
    assert 1 <= looks <= 2
    before = looks
    await strays.end(ReplicaKey("m", 0), "", StopLadder())
    assert looks == before


async def test_a_look_that_was_cancelled_holds_up_nobody() -> None:
    strays = StopStrays(InMemoryProcesses(InMemoryMachine()))
    async with strays._looking, anyio.create_task_group() as tasks:
        tasks.start_soon(strays.end, ReplicaKey("m", 0), "me.0", StopLadder())
        await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()
    with anyio.fail_after(1):
        await strays.end(ReplicaKey("m", 1), "me.1", StopLadder())
