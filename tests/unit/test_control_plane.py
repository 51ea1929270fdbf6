"""Commands over an in-memory bus, in virtual time: decoded, done, answered exactly once."""

import json
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

from localai_worker.adapters.memory.backend import FakeBackend
from localai_worker.adapters.memory.bus import InMemoryMessageBus
from localai_worker.adapters.memory.machine import FakeProgram
from localai_worker.app.testing import GALLERIES, MemoryNode, memory_node
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.errors import NoResponders, RequestTimedOut
from localai_worker.domain.messages.backend_list import BackendListReply
from localai_worker.domain.messages.node_status import LoadedModel
from localai_worker.domain.ports.processes import ProcessExit


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@pytest.fixture
async def node() -> AsyncIterator[MemoryNode]:
    async with memory_node() as node:
        node.offer("llama-cpp")
        yield node


async def test_an_install_brings_the_backend_and_answers_with_the_advertised_host(node: MemoryNode) -> None:
    """G-2.1.3, G-2.1.7."""
    reply = await node.install("llama-cpp", "qwen")
    assert (reply.success, reply.address, reply.error) == (True, "gpu1.example.com:50052", "")
    assert len(node.machine.running) == 1


async def test_every_field_of_an_install_has_its_effect_and_the_reply_is_compact(node: MemoryNode) -> None:
    """G-2.1.1."""
    node.parts.artifacts().trees["ocifile:///images/mine.tar"] = {"run.sh": b"#!/bin/sh\n"}
    request = {
        "backend": "tool",
        "model_id": "qwen",
        "backend_galleries": "[]",
        "uri": "ocifile:///images/mine.tar",
        "name": "my-tool",
        "alias": "tool",
        "unknown": [1],
    }
    reply = await node.bus.request(node.subjects.install, json.dumps(request).encode(), timeout_s=60)
    assert reply == b'{"success":true,"address":"gpu1.example.com:50052"}'
    replicas = [(str(each.key), each.backend) for each in node.worker.supervisor.replicas]
    assert replicas == [("qwen#0", "my-tool")]
    rows = BackendListReply.from_wire(await node.bus.request(node.subjects.list, b"{}", timeout_s=5)).backends
    assert [(row.name, row.uri) for row in rows] == [("my-tool", request["uri"])]
    assert (await node.install("tool", "by-its-alias")).success
    refused = await node.bus.request(node.subjects.install, b'{"backend":"nobody"}', timeout_s=60)
    text = 'installing backend from gallery: no backend found with name \\"nobody\\"'
    assert refused == f'{{"success":false,"error":"{text}"}}'.encode()


async def test_an_install_without_a_model_starts_an_idle_process_by_the_backends_name(
    node: MemoryNode,
) -> None:
    """G-2.1.5: what an administrator's install on nodes is."""
    reply = await node.install("llama-cpp")
    assert reply.success
    assert [str(each.key) for each in node.worker.supervisor.replicas] == ["llama-cpp#0"]
    assert (await node.install("llama-cpp")).address == reply.address
    assert len(node.machine.processes) == 1
    await node.bus.publish(node.subjects.stop, b'{"backend":"llama-cpp"}')
    await anyio.sleep(1)
    assert not node.machine.running


@pytest.mark.parametrize(
    ("told", "host"),
    [
        ({"LOCALAI_ADVERTISE_ADDR": "gpu1.example.com"}, "gpu1.example.com"),
        ({"LOCALAI_ADVERTISE_ADDR": "", "LOCALAI_ADDR": "gpu2:6000"}, "gpu2"),
        ({"LOCALAI_ADVERTISE_ADDR": "", "LOCALAI_ADDR": "0.0.0.0:6000"}, "host"),
        ({"LOCALAI_ADVERTISE_ADDR": "[fd00::1]:50051"}, "[fd00::1]"),
    ],
)
async def test_an_address_always_has_a_host_and_a_port(told: dict[str, str], host: str) -> None:
    """G-2.1.7: upstream answers `:<port>` where the advertised address has none."""
    async with memory_node(**told) as node:
        node.offer("llama-cpp")
        address = (await node.install("llama-cpp")).address
        port = node.machine.running[0].spec.arguments[-1].rpartition(":")[2]
        assert address == f"{host}:{port}"


async def test_a_second_install_of_the_same_model_answers_the_same_address(node: MemoryNode) -> None:
    """G-2.1.3, G-2.1.8."""
    first = await node.install("llama-cpp", "qwen")
    second = await node.install("llama-cpp", "qwen")
    assert first.address == second.address
    assert len(node.machine.processes) == 1
    node.machine.processes[0].end(ProcessExit(signal=9))
    await anyio.sleep(20)
    assert (await node.install("llama-cpp", "qwen")).success
    assert len(node.machine.running) == 1


async def test_replicas_and_backends_are_told_apart_by_their_keys(node: MemoryNode) -> None:
    """G-2.1.8, G-2.1.2: a key is a model and a replica; another backend under it ends the first."""
    node.offer("whisper")
    addresses = [(await node.install("llama-cpp", "qwen", replica_index=index)).address for index in (0, 1)]
    assert len(set(addresses)) == 2
    assert (await node.install("whisper", "qwen", replica_index=1)).success
    found = {str(each.key): each.backend for each in node.worker.supervisor.replicas}
    assert found == {"qwen#0": "llama-cpp", "qwen#1": "whisper"}
    assert len(node.machine.running) == 2


async def test_the_requests_galleries_replace_the_workers(node: MemoryNode) -> None:
    """G-1.1.6."""
    reply = await node.install("llama-cpp", "qwen", backend_galleries="null")
    assert reply.error == 'installing backend from gallery: no backend found with name "llama-cpp"'
    assert (await node.install("llama-cpp", "qwen", backend_galleries=GALLERIES)).success


async def test_unreadable_galleries_fail_the_install(node: MemoryNode) -> None:
    """G-1.1.7."""
    reply = await node.install("llama-cpp", "qwen", backend_galleries="[{")
    assert not reply.success
    assert "decoding backend galleries" in reply.error


async def test_a_backend_that_dies_is_answered_with_its_last_words(node: MemoryNode) -> None:
    never = float("inf")
    node.offer("broken", FakeProgram(exits_after_s=1, exit_code=1, listens_after_s=never, stderr="no CUDA\n"))
    reply = await node.install("broken", "m")
    assert not reply.success
    assert "backend process m#0 died during startup. Last stderr:\nno CUDA" in reply.error


async def test_an_endless_last_word_is_cut_to_fit_the_bus(node: MemoryNode) -> None:
    """N-B30: a reply larger than max_payload would be lost, and the frontend would wait out its timeout."""
    node.offer("loud", FakeProgram(exits_after_s=0.1, listens_after_s=9, stderr="x" * 3_000_000))
    reply = await node.install("loud", "m")
    assert "died during startup" in reply.error
    assert len(reply.to_wire()) < 128 * 1024


async def test_a_name_that_is_a_path_is_refused(node: MemoryNode) -> None:
    """N-B7: nothing outside the backends directory is ever started."""
    node.parts.filesystem().put(node.worker.files.roots.models / "evil" / "run.sh", b"#!/bin/sh\n")
    for name in ("../models/evil", "/node/models/evil", "..", ""):
        reply = await node.install(name, "m")
        assert not reply.success, name
        assert reply.error
    assert node.machine.processes == []


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b'{"backend":1}', b"\xff\xfe", b'{"replica_index":1.0}']
)
async def test_a_malformed_install_is_answered_and_has_no_effect(node: MemoryNode, payload: bytes) -> None:
    reply = json.loads(await node.bus.request(node.subjects.install, payload, timeout_s=5))
    assert reply["success"] is False
    assert reply["error"].startswith("invalid request: ")
    assert node.machine.processes == []


async def test_a_negative_replica_is_refused(node: MemoryNode) -> None:
    reply = await node.install("llama-cpp", "m", replica_index=-1)
    assert not reply.success
    assert "m#-1" in reply.error


async def test_installs_run_side_by_side(node: MemoryNode) -> None:
    """G-2.1.10, N-B13, G-F3: a slow one holds up nobody."""
    node.offer("slow", FakeProgram(listens_after_s=25))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.install, "slow", "big")
        await anyio.sleep(0.1)
        began_s = anyio.current_time()
        assert (await node.install("llama-cpp", "small")).success
        assert anyio.current_time() - began_s < 1


async def test_a_stop_ends_all_replicas_of_a_model(node: MemoryNode) -> None:
    """S-W14: by model id, by backend name, by exact key; others stay."""
    for index in (0, 1):
        await node.install("llama-cpp", "qwen", replica_index=index)
    await node.install("llama-cpp", "phi")
    await node.bus.publish(node.subjects.stop, b'{"backend":"qwen#0"}')
    await anyio.sleep(1)
    assert [str(replica.key) for replica in node.worker.supervisor.replicas] == ["qwen#1", "phi#0"]
    await node.bus.publish(node.subjects.stop, b'{"backend":"qwen"}')
    await anyio.sleep(1)
    assert [str(replica.key) for replica in node.worker.supervisor.replicas] == ["phi#0"]
    await node.bus.publish(node.subjects.stop, b'{"backend":"llama-cpp"}')
    await anyio.sleep(1)
    assert node.machine.running == ()


@pytest.mark.parametrize("payload", [b"", b"null", b"{}", b'{"backend":"","force":true}'])
async def test_a_stop_without_a_name_ends_everything(node: MemoryNode, payload: bytes) -> None:
    """S-W33: empty, null and {} are all "stop all"."""
    await node.install("llama-cpp", "qwen")
    await node.bus.publish(node.subjects.stop, payload)
    await anyio.sleep(1)
    assert node.machine.running == ()


@pytest.mark.parametrize("payload", [b"{", b"[]", b'"qwen"', b'{"backend":7}'])
async def test_a_malformed_stop_stops_nothing(node: MemoryNode, payload: bytes) -> None:
    """G-F16, N-B31: upstream's seed stopped every backend for a typo."""
    await node.install("llama-cpp", "qwen")
    await node.bus.publish(node.subjects.stop, payload)
    await anyio.sleep(1)
    assert len(node.machine.running) == 1


async def test_the_list_shows_what_is_installed(node: MemoryNode) -> None:
    """G-3.2.1."""
    empty = await node.bus.request(node.subjects.list, b"whatever", timeout_s=5)
    assert empty == b'{"backends":null}'
    await node.install("llama-cpp", "qwen")
    reply = BackendListReply.from_wire(await node.bus.request(node.subjects.list, b"{}", timeout_s=5))
    (row,) = reply.backends
    assert (row.name, row.is_system, row.is_meta) == ("llama-cpp", False, False)
    assert row.uri == "ocifile:///images/llama-cpp.tar"
    assert row.digest.startswith("sha256:")
    assert row.installed_at


async def test_a_bug_in_a_handler_is_answered_and_the_worker_lives_on(
    node: MemoryNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(**_arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(node.worker.control.backends.installer, "ensure", broken)
        reply = await node.install("llama-cpp", "qwen")
    assert reply.error == "internal error of the worker: ZeroDivisionError: a bug; see its log"
    assert "Traceback" in caplog.text
    assert (await node.install("llama-cpp", "qwen")).success


async def test_an_install_during_shutdown_is_refused_with_the_reason(node: MemoryNode) -> None:
    """N-B11, S-K22: while the worker drains, nothing new is started and the frontend is told why."""
    await node.install("llama-cpp", "qwen")
    (row,) = node.registry.nodes.values()
    row.models["qwen", 0] = LoadedModel(model_name="qwen", in_flight=1)
    node.registry.generation = "seed"  # a newer frontend forgets its rows when it drains
    node.worker.stop_requested.set()
    await anyio.sleep(1)
    refused = "this worker is shutting down; ask another node"
    assert (await node.install("llama-cpp", "late")).error == refused
    for subject in (node.subjects.upgrade, node.subjects.delete, node.subjects.model_delete):
        request = b'{"backend":"llama-cpp","model_name":"qwen"}'
        reply = json.loads(await node.bus.request(subject, request, timeout_s=5))
        assert (reply["success"], reply["error"]) == (False, refused), subject
    assert node.directories == ["llama-cpp"]
    assert node.keys == ["qwen#0"]
    listed = await node.bus.request(node.subjects.list, b"{}", timeout_s=5)
    assert b"llama-cpp" in listed


async def test_an_install_cut_by_the_end_of_the_worker_is_answered() -> None:
    """G-W19: the frontend hears that the worker went, it does not wait out its timeout."""
    replies: list[str] = []
    async with anyio.create_task_group() as tasks, memory_node() as node:
        node.offer("slow", FakeProgram(backend=FakeBackend(health="LOADING")))

        async def install() -> None:
            replies.append((await node.install("slow", "m")).error)

        tasks.start_soon(install)
        await anyio.sleep(1)
        node.worker.stop_requested.set()
        await anyio.sleep(60)
    assert len(replies) == 1
    assert "stopped during startup" in replies[0] or "shutting down" in replies[0]


async def test_a_worker_that_only_waits_to_send_its_last_words_listens_no_more() -> None:
    """N-B11: a bus that is away keeps the worker for seconds, and may come back within them."""
    told: list[type[Exception]] = []

    async def ask(node: MemoryNode) -> None:
        try:
            await node.bus.request(node.subjects.models_running, b"{}", timeout_s=60)
        except (NoResponders, RequestTimedOut) as error:
            told.append(type(error))

    async with anyio.create_task_group() as tasks, memory_node() as node:
        bus = node.worker.bus
        assert isinstance(bus, InMemoryMessageBus)
        bus.offline = node.bus.offline = True
        await bus.publish("last.words", b"")
        node.worker.stop_requested.set()
        while "deregister" not in node.endpoints:
            await anyio.sleep(0.1)
        tasks.start_soon(ask, node)
        await anyio.sleep(0.1)
        bus.offline = node.bus.offline = False
        await anyio.sleep(61)
    assert told == [NoResponders]


async def test_what_came_before_the_worker_left_is_answered(node: MemoryNode) -> None:
    """N-B11: a request that waits unread when the worker stops listening gets its reply all the same."""
    replies: list[bytes] = []

    async def ask() -> None:
        replies.append(await node.bus.request(node.subjects.models_running, b"{}", timeout_s=5))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)
        await anyio.lowlevel.checkpoint()  # they are delivered, nobody has read them
        await node.worker.control.close()
    assert len(replies) == 20


async def test_the_frontends_node_stop_ends_the_worker(node: MemoryNode) -> None:
    await node.bus.publish(node.subjects.node_stop, b"null")
    await anyio.sleep(5)
    assert node.endpoints[-2:] == ["deregister", "drain"]
