"""How long a start is waited for: 30 s after the last sign of work, four and a half minutes at most."""

import math
from collections.abc import AsyncIterator

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.memory.machine import FakeProgram
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.ports.processes import Work
from localai_worker.domain.ready_deadline import ReadyDeadline
from localai_worker.domain.supervision_errors import BackendNotReady
from tests.supervised import KEY, Node

NAMES = frozenset({"slow"})


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    async with node.supervisor.running():
        yield node


@given(st.lists(st.tuples(st.floats(0.5, 30), st.floats(0, 60), st.integers(0, 10)), max_size=80))
def test_whatever_a_process_does_the_deadline_only_moves_on_and_never_past_its_limit(
    looks: list[tuple[float, float, int]],
) -> None:
    deadline = ReadyDeadline(100, 30, 270)
    now_s, work = 100.0, Work()
    for after_s, cpu_s, output in looks:
        now_s += after_s
        work = Work(work.cpu_s + cpu_s, work.output_bytes + output)
        before_s = deadline.at_s
        deadline.look(work, now_s=now_s)
        assert before_s <= deadline.at_s <= 370
        worked = output > 0 or cpu_s >= after_s
        assert not worked or deadline.at_s == min(now_s + 30, 370)


def test_idling_is_no_work() -> None:
    """A server that only answers health checks uses some processor, too."""
    deadline = ReadyDeadline(0, 30, 270)
    deadline.look(Work(0.0, 7), now_s=2)
    deadline.look(Work(0.1, 7), now_s=4)
    assert deadline.at_s == 32


def test_a_patience_longer_than_the_limit_is_the_limit() -> None:
    deadline = ReadyDeadline(0, 600, 270)
    assert deadline.at_s == 600
    deadline.look(Work(9, 0), now_s=10)
    assert deadline.at_s == 600


async def test_a_backend_that_computes_is_waited_for(node: Node) -> None:
    """CUDA kernels compiled at the first start take minutes; an idle process would have been ended."""
    slow = node.install("slow", FakeProgram(listens_after_s=140, busy_s=120))
    assert await node.supervisor.start(KEY, slow, NAMES)
    assert anyio.current_time() == pytest.approx(140, abs=1)


async def test_a_backend_that_prints_is_waited_for(node: Node) -> None:
    slow = node.install("slow", FakeProgram(listens_after_s=100))

    async def chatter() -> None:
        for _ in range(9):
            await anyio.sleep(10)
            node.machine.running[0].print("still loading\n")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(chatter)
        assert await node.supervisor.start(KEY, slow, NAMES)


async def test_one_that_works_for_ever_is_ended_before_a_seed_frontend_gives_up(node: Node) -> None:
    slow = node.install("slow", FakeProgram(listens_after_s=math.inf, busy_s=math.inf))
    with pytest.raises(BackendNotReady) as caught:
        await node.supervisor.start(KEY, slow, NAMES)
    assert anyio.current_time() == pytest.approx(270, abs=0.2)
    assert str(caught.value).startswith("backend qwen#0 did not become ready within 270s. Last stderr:")
    assert node.machine.running == ()


async def test_one_that_stops_working_has_thirty_seconds_more(node: Node) -> None:
    slow = node.install("slow", FakeProgram(listens_after_s=math.inf, busy_s=60))
    with pytest.raises(BackendNotReady, match=r"within 9\ds, the last 30 s without a sign of work"):
        await node.supervisor.start(KEY, slow, NAMES)
    assert anyio.current_time() == pytest.approx(91, abs=2)
