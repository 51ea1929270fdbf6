"""Deaths that nobody asked for: what is said about them, to whom, and how memory that ran out shows."""

from collections.abc import AsyncIterator

import anyio
import pytest

from localai_worker.adapters.memory.loop_clock import LoopClock
from localai_worker.adapters.memory.machine import FakeProgram, InMemoryMachine
from localai_worker.adapters.memory.oom import InMemoryOomKills
from localai_worker.app.testing import memory_node
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.backend import ReplicaKey
from localai_worker.domain.deaths import Death, Deaths
from localai_worker.domain.durations import spoken
from localai_worker.domain.ports.processes import ProcessExit
from localai_worker.domain.supervision_errors import BackendDied
from tests.supervised import KEY, LLAMA, LLAMA_CPP, Node


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    async with node.supervisor.running():
        yield node


async def dead(node: Node, how: ProcessExit, *, after_s: float = 0.0) -> Death:
    """Start a replica, let it end, and return what became known of it."""
    await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    await anyio.sleep(after_s)
    (process,) = node.machine.running
    process.print("CUDA error\nlast words\n", stderr=True)
    process.end(how)
    await anyio.sleep(0.1)
    return node.deaths.recent[0]


async def test_a_death_tells_how_when_after_how_long_and_the_last_words(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """G-F21: at the moment of the death, in one line of the log."""
    death = await dead(node, ProcessExit(signal=11), after_s=200)
    assert (death.key, death.pid, death.how) == (KEY, 1000, ProcessExit(signal=11))
    assert death.uptime_s == pytest.approx(201, abs=0.1)
    assert death.stderr == "CUDA error\nlast words"
    assert death.verdict == "killed by signal 11 (SIGSEGV), after 3 min 21 s"
    assert str(death) == (
        "process 1000 of qwen#0 died at 2026-01-01 00:03:21+00:00: killed by signal 11 (SIGSEGV), "
        "after 3 min 21 s; last stderr: 'last words'"
    )
    (line,) = [record.getMessage() for record in caplog.records if "backend died" in record.getMessage()]
    assert line == (
        "backend died: replica=qwen#0 pid=1000 how='killed by signal 11 (SIGSEGV), after 3 min 21 s' "
        "last_stderr='last words'"
    )


async def test_a_process_whose_exit_code_nobody_knows_is_told_so(node: Node) -> None:
    death = await dead(node, ProcessExit())
    assert death.verdict == "gone, exit code unknown, after 1 s"


@pytest.mark.parametrize("how", [ProcessExit(signal=9), ProcessExit(code=137), ProcessExit()])
async def test_a_kill_that_the_kernel_counted_is_out_of_memory(node: Node, how: ProcessExit) -> None:
    """Also by a run.sh that reports its server's end, and of a process that is not our child."""
    await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    assert node.machine.oom_kills is not None
    node.machine.oom_kills += 1
    node.machine.running[0].end(how)
    await anyio.sleep(0.1)
    (death,) = node.deaths.recent
    assert death.out_of_memory
    assert f"{how}: out of memory, the kernel ended it" in death.verdict


async def test_other_ends_are_not_taken_for_out_of_memory(node: Node) -> None:
    await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    node.machine.oom_kills = 5
    node.machine.running[0].end(ProcessExit(code=1))
    await anyio.sleep(0.1)
    assert not node.deaths.recent[0].out_of_memory


async def test_each_kill_accounts_for_one_death(node: Node) -> None:
    """One counted kill before the start, one for the first death, none for the second."""
    node.machine.oom_kills = 1
    for model in ("a", "b"):
        await node.supervisor.start(ReplicaKey(model, 0), LLAMA_CPP, LLAMA)
    first, second = node.machine.running
    node.machine.kill_for_memory(first)
    second.end(ProcessExit(signal=9))
    await anyio.sleep(0.1)
    verdicts = {death.key.model: death.out_of_memory for death in node.deaths.recent}
    assert sorted(verdicts.values()) == [False, True]
    third = await dead(node, ProcessExit(signal=9))
    assert not third.out_of_memory
    assert third.verdict == "killed by signal 9 (SIGKILL), by somebody else or the kernel, after 1 s"


async def test_without_a_count_nothing_is_claimed(node: Node) -> None:
    node.machine.oom_kills = None
    assert not (await dead(node, ProcessExit(signal=9))).out_of_memory


async def test_memory_that_runs_out_during_a_start_is_told_in_its_error(node: Node) -> None:
    greedy = node.install("greedy", FakeProgram(listens_after_s=20))

    async def run_out() -> None:
        await anyio.sleep(5)
        node.machine.kill_for_memory(node.machine.running[0])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_out)
        with pytest.raises(BackendDied, match=r"SIGKILL.*: out of memory, the kernel ended it"):
            await node.supervisor.start(KEY, greedy, frozenset({"greedy"}))


async def test_the_next_reply_tells_the_death_once() -> None:
    """Kept for whoever asks next: a success says what became of the process before."""
    async with memory_node() as whole:
        whole.offer("llama-cpp")
        assert (await whole.install("llama-cpp", "qwen")).previous_death == ""
        whole.machine.running[0].end(ProcessExit(code=1))
        await anyio.sleep(0.1)
        assert (await whole.install("llama-cpp", "other")).previous_death == ""
        told = await whole.install("llama-cpp", "qwen")
        assert told.success
        assert told.previous_death.startswith("process 1000 of qwen#0 died at 2026-01-01 ")
        assert "exit code 1, after" in told.previous_death
        assert (await whole.install("llama-cpp", "qwen")).previous_death == ""


async def test_what_is_remembered_is_bounded(node: Node) -> None:
    deaths = Deaths(LoopClock(), InMemoryOomKills(InMemoryMachine()))
    for number in range(300):
        key = ReplicaKey(f"m{number}", 0)
        death = deaths.establish(key, pid=1, how=ProcessExit(code=1), uptime_s=1, kills_before=0, stderr="x")
        deaths.remember(death, node.program, healthy_for_s=0, told=False)
    assert len(deaths.recent) == 200
    assert deaths.recent[0].key.model == "m299"
    assert deaths.untold(ReplicaKey("m0", 0)) is None
    assert deaths.untold(ReplicaKey("m299", 0)) is not None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.04, "0.04 s"), (0.5, "0.5 s"), (9.96, "10 s"), (42.4, "42 s"), (60, "1 min"),
     (200, "3 min 20 s"),
     (3600, "1 h"), (7500, "2 h 5 min"), (90000, "25 h")],
)  # fmt: skip
def test_durations_are_spoken(seconds: float, text: str) -> None:
    assert spoken(seconds) == text
