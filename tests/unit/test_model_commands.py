"""Commands about models over an in-memory bus, in virtual time: inventory, stop, unload, delete."""

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from localai_worker.adapters.memory.backend import FakeBackend
from localai_worker.adapters.memory.machine import FakeProgram
from localai_worker.app.testing import MemoryNode, memory_node
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.messages.model import (
    ModelDeleteReply,
    ModelDeleteRequest,
    ModelsRunningReply,
    ModelStopReply,
    ModelStopRequest,
    ModelUnloadReply,
    ModelUnloadRequest,
)
from localai_worker.domain.ports.processes import ProcessExit

GOLDEN = Path(__file__).parents[1] / "golden/nats"
HOST = "gpu1.example.com"
MALFORMED = [b"", b"{", b"[]", b'"x"', b"7", b"\xff\xfe", b'{"model_name":1}', b'{"model_name":["qwen"]}']


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@pytest.fixture
async def node() -> AsyncIterator[MemoryNode]:
    async with memory_node() as node:
        node.offer("llama-cpp")
        yield node


def keys_of_golden(name: str) -> set[str]:
    return set(json.loads((GOLDEN / name).read_text())["reply"])


async def running(node: MemoryNode) -> list[tuple[str, int, str]]:
    reply = ModelsRunningReply.from_wire(
        await node.bus.request(node.subjects.models_running, b"{}", timeout_s=10)
    )
    assert not reply.error
    return [(row.model_id, row.replica_index, row.address) for row in reply.models]


async def stop(
    node: MemoryNode, key: str, expected_address: str = "", *, force: bool = False
) -> ModelStopReply:
    request = ModelStopRequest(
        model_name=key.rpartition("#")[0], process_key=key, expected_address=expected_address, force=force
    )
    return await node.ask(node.subjects.model_stop, request, ModelStopReply, timeout_s=10)


async def unload(node: MemoryNode, model_name: str, address: str = "") -> ModelUnloadReply:
    request = ModelUnloadRequest(model_name=model_name, address=address)
    return await node.ask(node.subjects.model_unload, request, ModelUnloadReply, timeout_s=30)


def freed(node: MemoryNode) -> dict[str, int]:
    """How often Free came, by the key of the process."""
    ports = {replica.port: str(replica.key) for replica in node.worker.supervisor.replicas}
    return {ports[process.port]: process.backend.freed for process in node.machine.running}


async def test_the_inventory_lists_what_is_up_with_its_advertised_address(node: MemoryNode) -> None:
    """S-W24: model, replica and address of every live process; the body is never read."""
    assert (
        await node.bus.request(node.subjects.models_running, b"\xff no json", timeout_s=10)
        == b'{"models":[]}'
    )
    await node.install("llama-cpp", "org/model#x", replica_index=1)
    await node.install("llama-cpp", "qwen")
    assert await running(node) == [("org/model#x", 1, f"{HOST}:50052"), ("qwen", 0, f"{HOST}:50053")]


async def test_the_inventory_leaves_out_the_dead_the_stopping_and_the_starting(node: MemoryNode) -> None:
    """S-W24: only what can serve is reported, and at once, whatever else goes on."""
    node.offer("slow", FakeProgram(term_s=5, listens_after_s=1))
    for backend, model in (("llama-cpp", "dead"), ("slow", "stopping"), ("llama-cpp", "alive")):
        await node.install(backend, model)
    node.machine.processes[0].end(ProcessExit(code=1))
    await node.bus.publish(node.subjects.stop, b'{"backend":"stopping"}')
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.install, "slow", "starting")
        await anyio.sleep(0.5)
        before_s = anyio.current_time()
        assert [model for model, _, _ in await running(node)] == ["alive"]
        assert anyio.current_time() == before_s


async def test_replicas_beyond_the_advertised_number_are_started(node: MemoryNode) -> None:
    """N-B34: the number is the frontend's, an administrator may have raised it there."""
    assert node.container.settings().max_replicas_per_model == 1
    for index in (0, 1, 7):
        assert (await node.install("llama-cpp", "qwen", replica_index=index)).success
    assert node.keys == ["qwen#0", "qwen#1", "qwen#7"]


async def test_an_install_without_a_model_starts_a_process_of_the_backends_own_name(node: MemoryNode) -> None:
    """N-B24: as upstream does; a success without address would send the frontend to another model."""
    reply = await node.install("llama-cpp")
    assert reply.address == f"{HOST}:50052"
    assert [(model, index) for model, index, _ in await running(node)] == [("llama-cpp", 0)]
    assert (await node.install("llama-cpp")).address == reply.address


async def test_a_stop_ends_exactly_one_replica_and_says_all_about_it(node: MemoryNode) -> None:
    """S-W20, N-B1: the advertised address means the process, and its port is given back before the reply."""
    for index in (0, 1):
        await node.install("llama-cpp", "qwen", replica_index=index)
    reply = await stop(node, "qwen#0", f"{HOST}:50052")
    assert reply == ModelStopReply(
        matched=True, freed=True, terminated=True, process_key="qwen#0", address=f"{HOST}:50052"
    )
    assert set(json.loads(reply.to_wire())) == keys_of_golden("23_model_stop_ok.json")
    assert node.keys == ["qwen#1"]
    assert list(node.worker.supervisor.ports.leased) == [50053]


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:50052", "localhost:50052", "[::1]:50052", ":50052", "GPU1.example.com:50052"]
)
async def test_a_stop_takes_every_address_that_means_the_process(node: MemoryNode, address: str) -> None:
    """N-B1, G-W31: ports are compared; loopback and advertised host mean this node."""
    await node.install("llama-cpp", "qwen")
    assert (await stop(node, "qwen#0", address)).terminated


@pytest.mark.parametrize("address", [f"{HOST}:50060", "127.0.0.1:50053", "other:50052", HOST, "50052", "%"])
async def test_a_stop_that_means_another_process_stops_nothing(node: MemoryNode, address: str) -> None:
    """S-W21: matched, not terminated, and the process lives."""
    await node.install("llama-cpp", "qwen")
    reply = await stop(node, "qwen#0", address)
    assert reply == ModelStopReply(
        matched=True,
        freed=False,
        terminated=False,
        process_key="qwen#0",
        address=f"{HOST}:50052",
        error=f'address mismatch for process qwen#0: recorded "{HOST}:50052", expected "{address}"',
    )
    assert set(json.loads(reply.to_wire())) == keys_of_golden("24_model_stop_mismatch.json")
    assert node.keys == ["qwen#0"]


@pytest.mark.parametrize("key", ["gone#0", "qwen", "qwen#1", "qwen#00", "#0", "", "llama-cpp"])
async def test_a_stop_of_an_absent_key_is_a_success(node: MemoryNode, key: str) -> None:
    """S-W22: only an exact key means a process; none of that key counts as terminated."""
    await node.install("llama-cpp", "qwen")
    reply = await stop(node, key, f"{HOST}:50052")
    assert reply == ModelStopReply(matched=False, freed=False, terminated=True, process_key=key)
    assert set(json.loads(reply.to_wire())) == keys_of_golden("25_model_stop_missing.json")
    assert node.keys == ["qwen#0"]


async def test_a_free_that_fails_is_told_and_does_not_hold_up_the_stop(node: MemoryNode) -> None:
    """S-W23: the error is reported, the process is gone all the same."""
    node.offer("poor", FakeProgram(backend=FakeBackend(has_free=False)))
    await node.install("poor", "qwen")
    reply = await stop(node, "qwen#0")
    assert (reply.matched, reply.freed, reply.terminated) == (True, False, True)
    assert reply.error.startswith("freeing process qwen#0: ")
    assert "UNIMPLEMENTED" in reply.error
    assert node.machine.running == ()


async def test_a_forced_stop_does_not_call_free(node: MemoryNode) -> None:
    """S-W23: force skips it."""
    await node.install("llama-cpp", "qwen")
    reply = await stop(node, "qwen#0", force=True)
    assert (reply.freed, reply.terminated, reply.error) == (False, True, "")
    assert node.machine.processes[0].backend.freed == 0


async def test_the_worst_process_is_gone_within_the_frontends_ten_seconds(node: MemoryNode) -> None:
    """N-B14: Free and grace are shorter here than for other stops."""
    stuck = FakeBackend(hangs=frozenset({"free"}))
    node.offer("stubborn", FakeProgram(backend=stuck, term_s=math.inf, child_outlives=True))
    await node.install("stubborn", "qwen")
    began_s = anyio.current_time()
    reply = await stop(node, "qwen#0")
    assert anyio.current_time() - began_s < 9
    assert reply.terminated
    assert "DEADLINE_EXCEEDED" in reply.error
    assert node.machine.processes[0].exit == ProcessExit(signal=9)
    assert not node.machine.processes[0].group_alive()


async def test_stops_of_different_replicas_do_not_wait_for_each_other(node: MemoryNode) -> None:
    """N-B14: each key for itself."""
    node.offer("slow", FakeProgram(term_s=3.5))
    for model in ("a", "b", "c"):
        await node.install("slow", model)
    began_s = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for model in ("a", "b", "c"):
            tasks.start_soon(stop, node, f"{model}#0")
    assert anyio.current_time() - began_s < 4


async def test_a_stop_of_what_is_stopping_waits_for_its_death(node: MemoryNode) -> None:
    """N-B39: terminated is said of the dead only; asking twice is safe."""
    node.offer("slow", FakeProgram(term_s=8))
    await node.install("slow", "qwen")
    await node.bus.publish(node.subjects.stop, b'{"backend":"qwen"}')
    await anyio.sleep(1)
    reply = await stop(node, "qwen#0")
    assert (reply.matched, reply.terminated, reply.error) == (True, True, "")
    assert node.machine.running == ()


async def test_a_stop_that_cannot_wait_long_enough_says_so_in_time(node: MemoryNode) -> None:
    """N-B14, N-B39: not terminated yet; the frontend's next try finds it gone."""
    node.offer("slow", FakeProgram(term_s=14))
    await node.install("slow", "qwen")
    await node.bus.publish(node.subjects.stop, b'{"backend":"qwen"}')
    await anyio.sleep(1)
    reply = await stop(node, "qwen#0")
    assert (reply.matched, reply.terminated) == (True, False)
    assert reply.error == "process qwen#0 is already stopping"
    await anyio.sleep(5)
    assert (await stop(node, "qwen#0")).terminated


async def test_an_unload_frees_the_replicas_of_that_model_only(node: MemoryNode) -> None:
    """N-B3, N-B38, G-W24, S-K01: upstream frees an arbitrary one, and what was evicted keeps its memory."""
    for model, index in (("phi", 0), ("qwen", 0), ("qwen", 1)):
        await node.install("llama-cpp", model, replica_index=index)
    reply = await unload(node, "qwen")
    assert reply.to_wire() == b'{"success":true}'
    assert freed(node) == {"phi#0": 0, "qwen#0": 1, "qwen#1": 1}
    assert (await unload(node, "qwen#1")).success
    assert freed(node) == {"phi#0": 0, "qwen#0": 1, "qwen#1": 2}


async def test_an_unload_by_address_frees_the_process_at_it(node: MemoryNode) -> None:
    """N-B3: no frontend sends one, but who does means that process."""
    for model in ("phi", "qwen"):
        await node.install("llama-cpp", model)
    assert (await unload(node, "", f"{HOST}:50053")).success
    assert freed(node) == {"phi#0": 0, "qwen#0": 1}


@pytest.mark.parametrize(
    ("model", "address"),
    [("other", ""), ("", ""), ("qwen#1", ""), ("", f"{HOST}:50099"), ("other", f"{HOST}:50052")],
)
async def test_an_unload_that_means_nothing_succeeds_and_frees_nothing(
    node: MemoryNode, model: str, address: str
) -> None:
    """N-B3: the model is not in memory, which is what was asked for."""
    await node.install("llama-cpp", "qwen")
    assert (await unload(node, model, address)).success
    assert freed(node) == {"qwen#0": 0}


async def test_an_unload_of_a_backend_without_free_is_a_success(node: MemoryNode) -> None:
    """N-B3: many backends lack the call."""
    node.offer("poor", FakeProgram(backend=FakeBackend(has_free=False)))
    await node.install("poor", "qwen")
    assert (await unload(node, "qwen")).success


async def test_an_unload_that_fails_is_told_within_five_seconds(node: MemoryNode) -> None:
    """G-W24: what was not freed is not called a success, and replicas are freed side by side."""
    node.offer("stuck", FakeProgram(backend=FakeBackend(hangs=frozenset({"free"}))))
    for index in (0, 1):
        await node.install("stuck", "qwen", replica_index=index)
    began_s = anyio.current_time()
    reply = await unload(node, "qwen")
    assert anyio.current_time() - began_s == pytest.approx(5, abs=0.1)
    assert not reply.success
    assert reply.error.count("DEADLINE_EXCEEDED") == 2
    assert reply.error.startswith("freeing process qwen#0: ")
    assert len(node.machine.running) == 2


async def delete(node: MemoryNode, name: str) -> ModelDeleteReply:
    return await node.ask(node.subjects.model_delete, ModelDeleteRequest(model_name=name), ModelDeleteReply)


async def test_a_delete_removes_the_files_and_leaves_the_process(node: MemoryNode) -> None:
    await node.install("llama-cpp", "qwen")
    weights = node.worker.files.roots.models / "qwen" / "weights.gguf"
    node.parts.filesystem().put(weights, b"1")
    assert (await delete(node, "qwen")).to_wire() == b'{"success":true}'
    assert node.parts.filesystem().get(weights) is None
    assert node.keys == ["qwen#0"]


async def test_a_delete_that_leads_out_is_answered_as_upstream_does(node: MemoryNode) -> None:
    golden = json.loads((GOLDEN / "22_model_delete_escape.json").read_text())
    reply = await node.bus.request(node.subjects.model_delete, golden["request_wire"].encode(), timeout_s=30)
    assert reply.decode() == golden["reply_wire"]
    assert (await delete(node, "")).error == "empty model name"


@pytest.mark.parametrize("payload", MALFORMED)
async def test_a_malformed_delete_is_answered_without_detail(node: MemoryNode, payload: bytes) -> None:
    """As upstream: the bare words, nothing touched."""
    weights = node.worker.files.roots.models / "1"
    node.parts.filesystem().put(weights, b"1")
    reply = await node.bus.request(node.subjects.model_delete, payload, timeout_s=30)
    assert reply == b'{"success":false,"error":"invalid request"}'
    assert node.parts.filesystem().get(weights) == b"1"


@pytest.mark.parametrize("payload", MALFORMED)
async def test_malformed_requests_are_answered_and_have_no_effect(node: MemoryNode, payload: bytes) -> None:
    await node.install("llama-cpp", "qwen")
    stopped = json.loads(await node.bus.request(node.subjects.model_stop, payload, timeout_s=10))
    assert stopped["error"].startswith("invalid request: ")
    assert (stopped["matched"], stopped["terminated"], stopped["process_key"]) == (False, False, "")
    unloaded = json.loads(await node.bus.request(node.subjects.model_unload, payload, timeout_s=10))
    assert unloaded["success"] is False
    assert unloaded["error"].startswith("invalid request: ")
    assert freed(node) == {"qwen#0": 0}
