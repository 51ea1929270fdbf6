"""The supervisor on an in-memory machine, in virtual time: start, readiness, reuse, stop, death."""

import math
from collections.abc import AsyncIterator

import anyio
import pytest

from localai_worker.adapters.memory.backend import FakeBackend
from localai_worker.adapters.memory.machine import FakeProgram
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.allocate_ports import NoFreePort
from localai_worker.domain.backend import ReplicaKey
from localai_worker.domain.ports.processes import ProcessExit
from localai_worker.domain.supervision_errors import (
    BackendDied,
    BackendNotReady,
    BackendNotStarted,
    GroupSurvived,
    StoppedDuringStartup,
    SupervisorClosed,
)
from tests.supervised import BACKENDS, KEY, LLAMA, LLAMA_CPP, Installed, Node


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    async with node.supervisor.running():
        yield node


async def test_a_start_returns_the_port_on_which_the_backend_answers(node: Node) -> None:
    port = await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    assert port == 50052
    (running,) = node.supervisor.replicas
    assert (running.key, running.backend, running.port) == (KEY, "llama-cpp", port)
    (process,) = node.machine.running
    assert process.spec.arguments == ("--addr", "0.0.0.0:50052")
    assert process.spec.environment == {"PATH": "/bin"}


@pytest.mark.parametrize("model", ["m" * 400, "ü" * 200])
async def test_replicas_of_a_model_with_a_long_name_write_to_files_of_their_own(
    node: Node, model: str
) -> None:
    for replica in (0, 1):
        await node.supervisor.start(ReplicaKey(model, replica), LLAMA_CPP, LLAMA)
    outputs = {
        path for process in node.machine.running for path in (process.spec.stdout, process.spec.stderr)
    }
    assert len(outputs) == 4
    assert max(len(path.name) for path in outputs) < 230  # .previous follows


async def test_a_start_waits_little_longer_than_the_backend_needs(node: Node) -> None:
    began_s = anyio.current_time()
    await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    assert 1.0 <= anyio.current_time() - began_s <= 1.02


async def test_a_running_replica_is_reused(node: Node) -> None:
    """S-W15: the same backend under any of its names, and only that."""
    port = await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    assert await node.supervisor.start(KEY, LLAMA_CPP, frozenset({"alias", "llama-cpp"})) == port
    assert len(node.machine.processes) == 1


async def test_another_backend_for_the_same_model_replaces_the_process(node: Node) -> None:
    """S-W16: a process of another variant is not handed out."""
    first = await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    other = node.install("vllm", FakeProgram())
    second = await node.supervisor.start(KEY, other, frozenset({"vllm"}))
    assert second != first
    assert [process.spec.directory.name for process in node.machine.running] == ["vllm"]


async def test_a_process_whose_directory_was_replaced_is_not_reused(node: Node) -> None:
    """S-W17: after a reinstall the old process runs from a deleted directory."""
    await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    await node.filesystem.remove_tree(BACKENDS / "llama-cpp")
    node.filesystem.put(BACKENDS / "llama-cpp" / "run.sh", b"new")
    await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    assert len(node.machine.processes) == 2
    assert len(node.machine.running) == 1


async def test_replicas_of_one_model_are_different_processes(node: Node) -> None:
    """S-W08: the replica index is part of the key."""
    ports = [await node.supervisor.start(ReplicaKey("qwen", index), LLAMA_CPP, LLAMA) for index in (0, 1)]
    assert len(set(ports)) == 2


async def test_concurrent_starts_of_one_key_share_one_process(node: Node) -> None:
    """D8: single flight per key."""
    ports: list[int] = []

    async def start() -> None:
        ports.append(await node.supervisor.start(KEY, LLAMA_CPP, LLAMA))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(start)
    assert len(set(ports)) == 1
    assert len(node.machine.processes) == 1


async def test_different_models_start_side_by_side(node: Node) -> None:
    """N-B13: nobody waits for another model's readiness."""
    began_s = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for index in range(5):
            tasks.start_soon(node.supervisor.start, ReplicaKey(f"m{index}", 0), LLAMA_CPP, LLAMA)
    assert anyio.current_time() - began_s < 1.1


async def test_a_backend_that_dies_at_start_is_reported_with_its_last_words(node: Node) -> None:
    broken = node.install(
        "broken",
        FakeProgram(listens_after_s=math.inf, exits_after_s=0.5, exit_code=3, stderr="a\nno such library\n"),
    )
    with pytest.raises(BackendDied) as caught:
        await node.supervisor.start(KEY, broken, frozenset({"broken"}))
    assert str(caught.value) == (
        "backend process qwen#0 died during startup. Last stderr:\na\nno such library\n"
        "(exit code 3, after 0.5 s)"
    )
    assert node.supervisor.replicas == ()
    assert node.ports.leased == {}


async def test_a_backend_that_never_answers_is_ended_after_the_limit(node: Node) -> None:
    """G-F1: no success for a port that does not answer."""
    mute = node.install("mute", FakeProgram(backend=FakeBackend(health="LOADING")))
    began_s = anyio.current_time()
    with pytest.raises(BackendNotReady, match="did not become ready within 30s") as caught:
        await node.supervisor.start(KEY, mute, frozenset({"mute"}))
    assert "LOADING" in str(caught.value)
    assert anyio.current_time() - began_s == pytest.approx(30, abs=0.1)
    assert node.machine.running == ()


async def test_a_hanging_health_call_does_not_outlast_the_limit(node: Node) -> None:
    hung = node.install("hung", FakeProgram(backend=FakeBackend(hangs=frozenset({"health"}))))
    with anyio.fail_after(31), pytest.raises(BackendNotReady):
        await node.supervisor.start(KEY, hung, frozenset({"hung"}))


async def test_a_stranger_who_answers_health_is_not_taken_for_the_backend(node: Node) -> None:
    """G-W27, N-B16: the listener must belong to the child."""
    node.install("llama-cpp", FakeProgram(listens_after_s=math.inf))
    async with anyio.create_task_group() as tasks:

        async def steal() -> None:
            await anyio.sleep(0.1)
            node.machine.strangers[50052] = FakeBackend()

        tasks.start_soon(steal)
        with pytest.raises(BackendNotReady, match="another program listens on port 50052"):
            await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)


async def test_ports_in_use_by_others_are_skipped_and_running_out_says_so(node: Node) -> None:
    node.machine.strangers.update({port: FakeBackend() for port in range(50051, 50060) if port != 50055})
    assert await node.supervisor.start(KEY, LLAMA_CPP, LLAMA) == 50055
    with pytest.raises(NoFreePort, match="8 taken by other programs"):
        await node.supervisor.start(ReplicaKey("other", 0), LLAMA_CPP, LLAMA)


async def test_a_program_that_cannot_be_spawned_leaves_nothing(node: Node) -> None:
    with pytest.raises(BackendNotStarted, match="starting backend process: cannot start"):
        await node.supervisor.start(KEY, Installed("missing"), frozenset({"missing"}))
    assert node.ports.leased == {}
    assert node.supervisor.table.keys_of("qwen") == ()


async def test_waiters_of_a_failed_start_get_the_same_reason(node: Node) -> None:
    broken = node.install("broken", FakeProgram(listens_after_s=math.inf, exits_after_s=0.5, exit_code=3))
    errors: list[str] = []

    async def start() -> None:
        with pytest.raises(BackendDied) as caught:
            await node.supervisor.start(KEY, broken, frozenset({"broken"}))
        errors.append(str(caught.value))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        tasks.start_soon(start)
    assert len(set(errors)) == 1
    assert len(node.machine.processes) == 1


async def test_a_stop_frees_ends_the_process_and_gives_the_port_back(node: Node) -> None:
    port = await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    (process,) = node.machine.running
    stopped = await node.supervisor.stop(KEY)
    assert stopped is not None
    assert stopped.freed
    assert process.backend.freed == 1
    assert process.exit == ProcessExit(signal=15)
    assert port not in node.ports.leased


async def test_a_forced_stop_skips_free(node: Node) -> None:
    await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    (process,) = node.machine.running
    stopped = await node.supervisor.stop(KEY, force=True)
    assert stopped is not None
    assert not stopped.freed
    assert process.backend.freed == 0


async def test_a_free_that_never_returns_still_ends_in_a_dead_process(node: Node) -> None:
    """G-F15, S-W19, N-B33: Free is given five seconds, then the process goes all the same."""
    stuck = node.install("stuck", FakeProgram(backend=FakeBackend(hangs=frozenset({"free"}))))
    await node.supervisor.start(KEY, stuck, frozenset({"stuck"}))
    began_s = anyio.current_time()
    stopped = await node.supervisor.stop(KEY)
    assert stopped is not None
    assert "DEADLINE_EXCEEDED" in stopped.free_error
    assert anyio.current_time() - began_s == pytest.approx(5, abs=0.1)
    assert node.machine.running == ()


async def test_a_process_that_ignores_term_is_killed_after_its_grace(node: Node) -> None:
    stubborn = node.install("stubborn", FakeProgram(term_s=math.inf))
    await node.supervisor.start(KEY, stubborn, frozenset({"stubborn"}))
    began_s = anyio.current_time()
    await node.supervisor.stop(KEY)
    assert anyio.current_time() - began_s == pytest.approx(15, abs=0.1)
    assert node.machine.processes[0].exit == ProcessExit(signal=9)


async def test_children_that_outlive_their_leader_are_killed_too(node: Node) -> None:
    """N-B8: the stop is over when the whole group is gone."""
    forking = node.install("forking", FakeProgram(child_outlives=True))
    await node.supervisor.start(KEY, forking, frozenset({"forking"}))
    await node.supervisor.stop(KEY)
    assert not node.machine.processes[0].group_alive()


async def test_a_process_that_outlives_kill_keeps_its_port_and_is_told(node: Node) -> None:
    """N-B15: what the kernel holds may still listen; a later stop, once it is let go, ends it."""
    held = node.install("held", FakeProgram(held_by_kernel=True))
    port = await node.supervisor.start(KEY, held, frozenset({"held"}))
    with pytest.raises(GroupSurvived, match="still runs 5 s after SIGKILL; its port stays reserved"):
        await node.supervisor.stop(KEY)
    assert port in node.ports.leased
    node.machine.processes[0].program.held_by_kernel = False
    await node.supervisor.stop(KEY)
    assert node.machine.running == ()
    assert port not in node.ports.leased


async def test_a_process_that_never_was_ready_is_not_handed_out_because_it_survived(node: Node) -> None:
    """N-B15: a start that failed stays failed, also when its process cannot be ended."""
    mute = node.install("mute", FakeProgram(backend=FakeBackend(health="LOADING"), held_by_kernel=True))
    with pytest.raises(BackendNotReady):
        await node.supervisor.start(KEY, mute, frozenset({"mute"}))
    with pytest.raises(GroupSurvived):
        await node.supervisor.start(KEY, mute, frozenset({"mute"}))
    assert node.supervisor.replicas == ()
    node.machine.processes[0].program.held_by_kernel = False


async def test_the_port_stays_taken_until_the_process_is_dead(node: Node) -> None:
    """S-W26: reserved during the whole stop, resting afterwards."""
    slow = node.install("slow", FakeProgram(term_s=10))
    port = await node.supervisor.start(KEY, slow, frozenset({"slow"}))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.supervisor.stop, KEY)
        await anyio.sleep(9)
        assert port in node.ports.leased
        assert node.supervisor.replicas == ()
        await anyio.sleep(2)
        assert port not in node.ports.leased


async def test_a_start_during_a_stop_waits_and_starts_anew(node: Node) -> None:
    """N-B40: the address of a process that is being ended is never handed out."""
    slow = node.install("slow", FakeProgram(term_s=3))
    first = await node.supervisor.start(KEY, slow, frozenset({"slow"}))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.supervisor.stop, KEY)
        await anyio.sleep(1)
        second = await node.supervisor.start(KEY, slow, frozenset({"slow"}))
    assert second != first
    assert len(node.machine.running) == 1


async def test_a_second_stop_reports_only_after_death(node: Node) -> None:
    """N-B39: whoever asks while a stop is under way waits for its end."""
    slow = node.install("slow", FakeProgram(term_s=3))
    await node.supervisor.start(KEY, slow, frozenset({"slow"}))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.supervisor.stop, KEY)
        await anyio.sleep(1)
        await node.supervisor.stop(KEY)
        assert node.machine.running == ()


async def test_a_stop_during_a_start_ends_it_and_the_start_says_so(node: Node) -> None:
    async with anyio.create_task_group() as tasks:

        async def start() -> None:
            with pytest.raises(StoppedDuringStartup, match="was stopped during startup"):
                await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)

        tasks.start_soon(start)
        await anyio.sleep(0.5)
        await node.supervisor.stop(KEY)
    assert node.machine.running == ()
    assert node.ports.leased == {}


async def test_a_cancelled_start_leaves_no_process(node: Node) -> None:
    with anyio.move_on_after(0.5):
        await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    assert node.machine.running == ()
    assert node.ports.leased == {}


async def test_a_cancelled_stop_runs_to_its_end(node: Node) -> None:
    slow = node.install("slow", FakeProgram(term_s=10))
    await node.supervisor.start(KEY, slow, frozenset({"slow"}))
    with anyio.move_on_after(1):
        await node.supervisor.stop(KEY)
    assert node.machine.running == ()
    assert node.ports.leased == {}


async def test_a_death_is_noticed_at_once_and_the_next_start_is_a_new_process(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """G-F2, N-B32: the entry goes, the port rests, and nothing is restarted on its own (D14)."""
    port = await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    node.machine.processes[0].end(ProcessExit(signal=11))
    await anyio.sleep(0.1)
    assert node.supervisor.replicas == ()
    assert node.ports.leased == {}
    assert "backend died: replica=qwen#0" in caplog.text
    assert "killed by signal 11" in caplog.text
    await anyio.sleep(60)
    assert node.machine.running == ()
    assert await node.supervisor.start(KEY, LLAMA_CPP, LLAMA) == port  # rested, and still its own


async def test_children_left_behind_by_a_dead_leader_are_ended(node: Node) -> None:
    forking = node.install("forking", FakeProgram(child_outlives=True))
    await node.supervisor.start(KEY, forking, frozenset({"forking"}))
    node.machine.processes[0].end(ProcessExit(code=1))
    await anyio.sleep(0.1)
    assert not node.machine.processes[0].group_alive()
    assert node.ports.leased == {}


async def test_stop_all_stops_side_by_side(node: Node) -> None:
    """G-W13, N-B11: n slow stops take as long as one."""
    slow = node.install("slow", FakeProgram(term_s=10))
    for index in range(4):
        await node.supervisor.start(ReplicaKey("m", index), slow, frozenset({"slow"}))
    began_s = anyio.current_time()
    await node.supervisor.stop_all()
    assert anyio.current_time() - began_s < 11
    assert node.machine.running == ()


async def test_a_bare_model_id_means_all_its_replicas(node: Node) -> None:
    """S-W09: exact key, model id, and the backend's own names."""
    for index in (0, 1):
        await node.supervisor.start(ReplicaKey("qwen", index), LLAMA_CPP, LLAMA)
    other = node.install("vllm", FakeProgram())
    await node.supervisor.start(ReplicaKey("phi", 0), other, frozenset({"vllm"}))
    keys = node.supervisor.table.keys_of
    assert set(keys("qwen")) == {ReplicaKey("qwen", 0), ReplicaKey("qwen", 1)}
    assert keys("qwen#1") == (ReplicaKey("qwen", 1),)
    assert keys("unknown") == ()
    assert keys("vllm", frozenset({"vllm"})) == (ReplicaKey("phi", 0),)


async def test_nothing_starts_once_the_worker_is_going_down(node: Node) -> None:
    """N-B11: an install during shutdown starts no backend."""
    node.supervisor.refuse_new_work()
    with pytest.raises(SupervisorClosed, match="this worker is shutting down"):
        await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)


async def test_leaving_ends_every_process_also_one_that_is_starting() -> None:
    node = Node()
    async with anyio.create_task_group() as tasks, node.supervisor.running():
        await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)

        async def start_another() -> None:
            with pytest.raises(StoppedDuringStartup):
                await node.supervisor.start(ReplicaKey("late", 0), LLAMA_CPP, LLAMA)

        tasks.start_soon(start_another)
        await anyio.sleep(0.5)
    assert node.machine.running == ()
    assert node.ports.leased == {}


async def test_vulkan_drivers_in_the_backend_are_pointed_at(node: Node) -> None:
    """G-F22: without these names a Vulkan backend silently computes on the CPU."""
    manifests = BACKENDS / "llama-cpp" / "vulkan" / "icd.d"
    node.filesystem.put(manifests / "radeon.json", b"{}")
    node.filesystem.put(manifests / "intel.json", b"{}")
    node.filesystem.put(manifests / "README", b"")
    await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    expected = f"{manifests / 'intel.json'}:{manifests / 'radeon.json'}"
    environment = node.machine.processes[0].spec.environment
    assert environment["VK_DRIVER_FILES"] == environment["VK_ICD_FILENAMES"] == expected
