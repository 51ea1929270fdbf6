"""Crash loops: how deaths space out the starts that follow, as a pure rule and in a supervisor."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.memory.machine import FakeProgram
from localai_worker.app.testing import memory_node
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.backend import ReplicaKey
from localai_worker.domain.crash_loops import CrashLoops, Pause, Program
from localai_worker.domain.deaths import CrashLoop
from localai_worker.domain.ports.processes import ProcessExit
from localai_worker.domain.supervision_errors import BackendDied
from tests.supervised import BACKENDS, KEY, LLAMA, LLAMA_CPP, Installed, Node

PROGRAM = Program(Path("/b/run.sh"), 7)
BROKEN = FakeProgram(listens_after_s=9, exits_after_s=1, exit_code=3, stderr="a\nno such library\n")
BROKEN_NAMES = frozenset({"broken"})


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    async with node.supervisor.running():
        yield node


def loops(*deaths_at_s: float) -> CrashLoops:
    found = CrashLoops()
    for at_s in deaths_at_s:
        found.died(KEY, PROGRAM, healthy_for_s=0, now_s=at_s)
    return found


def test_the_first_deaths_cost_nothing_and_each_further_one_doubles_the_pause() -> None:
    found = CrashLoops()
    pauses = []
    for count in range(1, 12):
        found.died(KEY, PROGRAM, healthy_for_s=0, now_s=count)
        pause = found.pause(KEY, PROGRAM, now_s=count)
        pauses.append(pause.left_s if pause else 0)
    assert pauses == [0, 0, 10, 20, 40, 80, 160, 300, 300, 300, 300]


def test_a_pause_tells_how_often_and_ends() -> None:
    found = loops(0, 60, 120)
    assert found.pause(KEY, PROGRAM, now_s=124) == Pause(3, 120, 6)
    assert found.pause(KEY, PROGRAM, now_s=130) is None
    assert found.pause(ReplicaKey("qwen", 1), PROGRAM, now_s=124) is None


def test_ten_minutes_of_health_and_half_an_hour_without_a_death_forgive_all() -> None:
    found = loops(0, 1, 2)
    found.died(KEY, PROGRAM, healthy_for_s=599, now_s=700)
    assert found.pause(KEY, PROGRAM, now_s=700) == Pause(4, 700, 20)
    found.died(KEY, PROGRAM, healthy_for_s=600, now_s=1400)
    assert found.pause(KEY, PROGRAM, now_s=1400) is None
    found = loops(0, 1, 2)
    found.died(KEY, PROGRAM, healthy_for_s=0, now_s=1802)
    assert found.pause(KEY, PROGRAM, now_s=1802) is None


def test_another_program_begins_with_a_clean_record() -> None:
    found = loops(0, 1, 2)
    upgraded = Program(PROGRAM.run_file, 8)
    assert found.pause(KEY, upgraded, now_s=3) is None
    found.died(KEY, upgraded, healthy_for_s=0, now_s=3)
    assert found.pause(KEY, upgraded, now_s=3) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 2000)), max_size=60))
def test_whatever_dies_a_pause_never_exceeds_its_limit_and_memory_is_bounded(
    steps: list[tuple[int, float]],
) -> None:
    found, now_s = CrashLoops(), 0.0
    for replica, after_s in steps:
        now_s += after_s
        key = ReplicaKey("m", replica)
        found.died(key, PROGRAM, healthy_for_s=0, now_s=now_s)
        pause = found.pause(key, PROGRAM, now_s=now_s)
        assert pause is None or 0 < pause.left_s <= 300
    found.pause(KEY, PROGRAM, now_s=now_s + 1801)
    assert found._deaths == {}


async def test_a_backend_that_keeps_dying_at_start_is_answered_instead_of_started(node: Node) -> None:
    """G-W12: the answer says how often, since when, when to try again, and what it said the last time."""
    broken = node.install("broken", BROKEN)
    for _ in range(3):
        with pytest.raises(BackendDied):
            await node.supervisor.start(KEY, broken, BROKEN_NAMES)
    with pytest.raises(CrashLoop) as caught:
        await node.supervisor.start(KEY, broken, BROKEN_NAMES)
    assert str(caught.value) == (
        "backend process qwen#0 died 3 times in 2 s, next try at 2026-01-01 00:00:13+00:00 (in 10 s; a "
        "reinstall or upgrade of the backend is tried at once). The last time: exit code 3, after 1 s. "
        "Last stderr:\na\nno such library"
    )
    assert len(node.machine.processes) == 3
    await anyio.sleep(10)
    with pytest.raises(BackendDied):
        await node.supervisor.start(KEY, broken, BROKEN_NAMES)


async def test_a_crash_loop_is_a_worry_of_the_node(node: Node) -> None:
    broken = node.install("broken", BROKEN)
    for _ in range(3):
        assert not node.deaths.worries
        with pytest.raises(BackendDied):
            await node.supervisor.start(KEY, broken, BROKEN_NAMES)
    assert node.deaths.worries == ("1 backend(s) keep dying, their next start waits",)
    await anyio.sleep(11)
    assert not node.deaths.worries


async def test_refusals_take_no_port(node: Node) -> None:
    """S-W29: a frontend that asks again and again during a crash loop does not use up the range."""
    broken = node.install("broken", BROKEN)
    for _ in range(3):
        with pytest.raises(BackendDied):
            await node.supervisor.start(KEY, broken, BROKEN_NAMES)
    for _ in range(100):
        with pytest.raises(CrashLoop):
            await node.supervisor.start(KEY, broken, BROKEN_NAMES)
    await anyio.sleep(15)
    for replica in range(9):
        await node.supervisor.start(ReplicaKey("m", replica), LLAMA_CPP, LLAMA)


async def test_another_replica_of_the_model_is_not_held_up(node: Node) -> None:
    broken = node.install("broken", BROKEN)
    for _ in range(3):
        with pytest.raises(BackendDied):
            await node.supervisor.start(KEY, broken, BROKEN_NAMES)
    with pytest.raises(BackendDied):
        await node.supervisor.start(ReplicaKey("qwen", 1), broken, BROKEN_NAMES)


async def test_deaths_after_a_short_life_count_and_a_reinstall_is_tried_at_once(node: Node) -> None:
    """What dies while it loads its model was ready before, and is in a loop all the same."""
    for _ in range(3):
        await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
        node.machine.running[0].end(ProcessExit(code=1))
        await anyio.sleep(0.1)
    with pytest.raises(CrashLoop, match="died 3 times"):
        await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    await node.filesystem.remove_tree(BACKENDS / "llama-cpp")
    node.filesystem.put(BACKENDS / "llama-cpp" / "run.sh", b"mended")
    await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)


async def test_what_is_stopped_on_purpose_has_not_died(node: Node) -> None:
    for _ in range(5):
        await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
        await node.supervisor.stop(KEY)
    assert node.deaths.recent == ()


async def test_a_program_that_cannot_be_spawned_has_not_died(node: Node) -> None:
    for _ in range(5):
        with pytest.raises(Exception, match="starting backend process"):
            await node.supervisor.start(KEY, Installed("missing"), frozenset({"missing"}))
    assert node.deaths.recent == ()


async def test_the_frontend_reads_the_reason_in_the_reply() -> None:
    async with memory_node() as whole:
        whole.offer("broken", BROKEN)
        for _ in range(3):
            assert "died during startup" in (await whole.install("broken", "m")).error
        reply = await whole.install("broken", "m")
        assert reply.error.startswith("backend process m#0 died 3 times in 2 s, next try at ")
        forced = await whole.install("broken", "m", force=True)
        assert forced.error.startswith("backend process m#0 died during startup")
