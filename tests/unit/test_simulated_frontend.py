"""The simulated frontend over an in-memory bus: what it sends, what it makes of answers, what it counts."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from localai_worker.adapters.memory.backend import FakeBackend
from localai_worker.adapters.memory.backend_client import InMemoryBackendClient
from localai_worker.adapters.memory.bus import InMemoryBroker, InMemoryMessageBus
from localai_worker.adapters.memory.frontend_nodes import Generation
from localai_worker.adapters.memory.frontend_registry import NodeRegistry
from localai_worker.adapters.memory.machine import InMemoryMachine
from localai_worker.app.simulator.failures import CommandRefused, NodeNotThere
from localai_worker.app.simulator.frontend import SimulatedFrontend
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.errors import (
    BackendUnavailable,
    MalformedMessage,
    ModelLoadFailed,
    NoResponders,
    RequestTimedOut,
)
from localai_worker.domain.galleries import Gallery, parse_galleries
from localai_worker.domain.messages.backend import (
    BackendInstallReply,
    BackendInstallRequest,
    BackendStopRequest,
)
from localai_worker.domain.messages.backend_list import BackendListReply, NodeBackendInfo
from localai_worker.domain.messages.node_status import LoadedModel
from localai_worker.domain.messages.registration import RegisterRequest
from localai_worker.domain.messages.subjects import NodeSubjects
from localai_worker.domain.node import NodeId
from localai_worker.domain.ports.backend_client import ModelToLoad

_GOLDEN = Path(__file__).parents[1] / "golden" / "nats"
NODE = NodeId("7c9e6679-7425-40de-944b-e07fc1f90ae7")
ADDRESS = "10.0.0.5:50052"
MODEL = ModelToLoad(name="qwen.gguf", file="/models/qwen/qwen.gguf")
LOCALAI = Gallery("localai", "github:mudler/LocalAI/backend/index.yaml@master")

Handler = Callable[[bytes], bytes | None]


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@dataclass
class Files:
    """A stager that keeps what it is sent."""

    http_address: str
    stored: dict[str, bytes] = field(default_factory=dict)
    closed: bool = False

    async def ensure(self, source: Path, key: str) -> str:
        self.stored[key] = source.read_bytes()
        return f"/node/{key}"

    async def close(self) -> None:
        self.closed = True


@dataclass
class Cluster:
    """A frontend, and a node whose worker is what `answering` makes of it."""

    frontend: SimulatedFrontend
    machine: InMemoryMachine
    worker_bus: InMemoryMessageBus
    stagers: list[Files] = field(default_factory=list)
    heard: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def rows(self) -> Mapping[tuple[str, int], LoadedModel]:
        return self.frontend.registry.row(NODE).models

    @asynccontextmanager
    async def answering(self, subject: str, handle: Handler) -> AsyncIterator[None]:
        """A worker that hears `subject` and replies what `handle` gives, if anything."""
        subscription = await self.worker_bus.subscribe(subject)

        async def serve() -> None:
            async for message in subscription:
                self.heard.append((message.subject, message.payload))
                reply = handle(message.payload)
                if reply is not None and message.reply_to:
                    await self.worker_bus.publish(message.reply_to, reply)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            yield
            await anyio.sleep(1)  # what was published arrives
            tasks.cancel_scope.cancel()

    @asynccontextmanager
    async def installing(self, reply: BackendInstallReply) -> AsyncIterator[None]:
        async with self.answering(NodeSubjects(NODE).install, lambda payload: reply.to_wire()):
            yield


async def _cluster(generation: Generation) -> Cluster:
    broker = InMemoryBroker()
    frontend_bus, worker_bus = InMemoryMessageBus(broker), InMemoryMessageBus(broker)
    await frontend_bus.open()
    await worker_bus.open()
    registry = NodeRegistry(generation=generation, ids=lambda name, earlier: NODE)
    registry.take_in(RegisterRequest(name="gpu-1", address="gpu-1:50051", http_address="gpu-1:50050"))
    machine = InMemoryMachine()
    stagers: list[Files] = []

    def make_stager(http_address: str) -> Files:
        stagers.append(Files(http_address))
        return stagers[-1]

    frontend = SimulatedFrontend(
        bus=frontend_bus, registry=registry, inference=InMemoryBackendClient(machine), stager=make_stager
    )
    return Cluster(frontend, machine, worker_bus, stagers)


@pytest.fixture
async def cluster() -> Cluster:
    return await _cluster("newer")


def golden(name: str) -> Any:
    return json.loads((_GOLDEN / f"{name}.json").read_text())


# Commands.


@pytest.mark.parametrize(
    ("name", "generation"),
    [
        ("01_install_model_load", "seed"),
        ("02_install_admin_external_uri", "seed"),
        ("06_install_replica_with_op", "newer"),
        ("07_install_legacy_force", "newer"),
    ],
)
async def test_an_install_is_sent_and_understood_as_recorded(name: str, generation: Generation) -> None:
    recorded = golden(name)
    cluster = await _cluster(generation)
    fields: dict[str, Any] = dict(recorded["request"])
    galleries = parse_galleries(fields.pop("backend_galleries"))
    async with cluster.answering(recorded["subject"], lambda payload: recorded["reply_wire"].encode()):
        address = await cluster.frontend.install(NODE, fields.pop("backend"), galleries=galleries, **fields)
    assert cluster.heard == [(recorded["subject"], recorded["request_wire"].encode())]
    assert address == recorded["reply"]["address"]


@pytest.mark.parametrize("name", ["03_install_not_found", "05_install_died_during_startup"])
async def test_a_failed_install_raises_the_workers_text(cluster: Cluster, name: str) -> None:
    recorded = golden(name)
    async with cluster.answering(recorded["subject"], lambda payload: recorded["reply_wire"].encode()):
        with pytest.raises(CommandRefused) as caught:
            await cluster.frontend.install(NODE, "llama-cpp")
    assert caught.value.error == recorded["reply"]["error"]
    assert recorded["reply"]["error"] in str(caught.value)


async def test_a_request_without_galleries_says_so(cluster: Cluster) -> None:
    async with cluster.installing(BackendInstallReply(success=True, address=ADDRESS)):
        await cluster.frontend.install(NODE, "llama-cpp")
    request = BackendInstallRequest.from_wire(cluster.heard[0][1])
    assert request.backend_galleries == "null"


async def test_a_gallery_is_sent_with_all_it_has(cluster: Cluster) -> None:
    full = Gallery("a", "https://a/index.yaml", ("https://b/index.yaml",), {"issuer": "https://i"})
    async with cluster.installing(BackendInstallReply(success=True, address=ADDRESS)):
        await cluster.frontend.install(NODE, "llama-cpp", galleries=(LOCALAI, full))
    request = BackendInstallRequest.from_wire(cluster.heard[0][1])
    assert parse_galleries(request.backend_galleries) == (LOCALAI, full)


async def test_a_success_without_address_means_the_nodes_own(cluster: Cluster) -> None:
    """S-K21"""
    async with cluster.installing(BackendInstallReply(success=True)):
        assert await cluster.frontend.install(NODE, "llama-cpp") == "gpu-1:50051"


@pytest.mark.parametrize("reply", [b"", b"[]", b"nonsense"])
async def test_an_answer_that_is_none_is_malformed(cluster: Cluster, reply: bytes) -> None:
    async with cluster.answering(NodeSubjects(NODE).install, lambda payload: reply):
        with pytest.raises(MalformedMessage):
            await cluster.frontend.install(NODE, "llama-cpp")


async def test_commands_to_a_node_where_nobody_listens_fail_at_once(cluster: Cluster) -> None:
    with pytest.raises(NoResponders):
        await cluster.frontend.install(NODE, "llama-cpp")
    with pytest.raises(NoResponders):
        await cluster.frontend.list_backends(NODE)
    assert anyio.current_time() == 0


@pytest.mark.parametrize(("generation", "limit_s"), [("seed", 300), ("newer", 900)])
async def test_an_install_is_waited_for_as_long_as_the_generation_does(
    generation: Generation, limit_s: float
) -> None:
    cluster = await _cluster(generation)
    async with cluster.answering(NodeSubjects(NODE).install, lambda payload: None):
        with pytest.raises(RequestTimedOut):
            await cluster.frontend.install(NODE, "llama-cpp")
        assert anyio.current_time() == pytest.approx(limit_s)


async def test_a_listing_is_waited_for_half_a_minute(cluster: Cluster) -> None:
    async with cluster.answering(NodeSubjects(NODE).list, lambda payload: None):
        with pytest.raises(RequestTimedOut):
            await cluster.frontend.list_backends(NODE)
        assert anyio.current_time() == pytest.approx(30)


@pytest.mark.parametrize("name", ["12_list_mixed", "13_list_empty"])
async def test_a_listing_is_asked_for_and_read_as_recorded(cluster: Cluster, name: str) -> None:
    recorded = golden(name)
    async with cluster.answering(recorded["subject"], lambda payload: recorded["reply_wire"].encode()):
        backends = await cluster.frontend.list_backends(NODE)
    assert cluster.heard == [(recorded["subject"], recorded["request_wire"].encode())]
    names = [row["name"] for row in recorded["reply"]["backends"] or ()]
    assert [backend.name for backend in backends] == names


async def test_a_failed_listing_raises_the_workers_text(cluster: Cluster) -> None:
    reply = BackendListReply(backends=(NodeBackendInfo(name="x"),), error="disk on fire")
    async with cluster.answering(NodeSubjects(NODE).list, lambda payload: reply.to_wire()):
        with pytest.raises(CommandRefused, match="disk on fire"):
            await cluster.frontend.list_backends(NODE)


@pytest.mark.parametrize(
    "name", ["15_stop_one", "16_stop_all", "17_stop_all_forced", "18_stop_exact_replica", "27_node_stop"]
)
async def test_a_stop_is_published_as_recorded(cluster: Cluster, name: str) -> None:
    recorded = golden(name)
    async with cluster.answering(recorded["subject"], lambda payload: None):
        if name == "27_node_stop":
            await cluster.frontend.node_stop(NODE)
        else:
            request = BackendStopRequest.from_wire(recorded["request_wire"].encode())
            await cluster.frontend.stop(NODE, request.backend, force=request.force)
    assert cluster.heard == [(recorded["subject"], recorded["request_wire"].encode())]


async def test_a_seed_frontend_cannot_say_what_only_newer_ones_know() -> None:
    seed = (await _cluster("seed")).frontend
    for fields in ({"replica_index": 1}, {"force": True}, {"op_id": "x"}):
        with pytest.raises(ValueError, match="seed frontend"):
            await seed.install(NODE, "llama-cpp", **fields)
    with pytest.raises(ValueError, match="seed frontend"):
        await seed.stop(NODE, "qwen", force=True)
    assert not seed.exchanges


async def test_every_message_is_kept_with_its_answer_or_failure(cluster: Cluster) -> None:
    frontend = cluster.frontend
    async with cluster.answering(NodeSubjects(NODE).list, lambda payload: BackendListReply().to_wire()):
        await frontend.list_backends(NODE)
    await frontend.stop(NODE)
    with pytest.raises(NoResponders):
        await frontend.install(NODE, "llama-cpp")
    listed, stopped, installed = frontend.exchanges
    assert str(listed) == f'nodes.{NODE}.backend.list {{}} -> {{"backends":null}}'
    assert str(stopped) == f"nodes.{NODE}.backend.stop null"
    assert str(installed).endswith(f"!! {NoResponders(NodeSubjects(NODE).install)}")


# Rows.


async def _loaded(cluster: Cluster, *, replica: int = 0, address: str = ADDRESS) -> None:
    cluster.machine.strangers[int(address.rpartition(":")[2])] = FakeBackend()
    async with cluster.installing(BackendInstallReply(success=True, address=address)):
        await cluster.frontend.install(NODE, "llama-cpp", model_id="qwen", replica_index=replica)
    await cluster.frontend.load_model(address, MODEL)


async def test_a_loaded_model_gets_a_row_that_the_first_request_frees(cluster: Cluster) -> None:
    await _loaded(cluster)
    row = cluster.rows["qwen", 0]
    assert (row.address, row.state, row.in_flight, row.backend_type) == (ADDRESS, "loaded", 1, "llama-cpp")
    vector = await cluster.frontend.embed(ADDRESS, "hello")
    assert len(vector) > 1
    assert cluster.rows["qwen", 0].in_flight == 0
    await cluster.frontend.embed(ADDRESS, "hello again")
    assert cluster.rows["qwen", 0].in_flight == 0


async def test_requests_count_as_in_flight_while_they_run(cluster: Cluster) -> None:
    await _loaded(cluster)
    await cluster.frontend.embed(ADDRESS, "the reservation is gone")
    cluster.machine.strangers[50052].hangs = frozenset({"embed"})

    async def hang() -> None:
        with pytest.raises(BackendUnavailable):
            await cluster.frontend.embed(ADDRESS, "hello")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hang)
        tasks.start_soon(hang)
        await anyio.sleep(1)
        assert cluster.rows["qwen", 0].in_flight == 2
    assert cluster.rows["qwen", 0].in_flight == 0


async def test_a_model_that_cannot_be_loaded_gets_no_row(cluster: Cluster) -> None:
    async with cluster.installing(BackendInstallReply(success=True, address=ADDRESS)):
        await cluster.frontend.install(NODE, "llama-cpp", model_id="qwen")
    cluster.machine.strangers[50052] = FakeBackend(refuses_load="out of memory")
    with pytest.raises(ModelLoadFailed, match="out of memory"):
        await cluster.frontend.load_model(ADDRESS, MODEL)
    assert not cluster.rows


async def test_a_backend_nobody_installed_through_the_frontend_works_without_rows(cluster: Cluster) -> None:
    cluster.machine.strangers[50052] = FakeBackend()
    await cluster.frontend.load_model(ADDRESS, MODEL)
    await cluster.frontend.embed(ADDRESS, "hello")
    assert not cluster.rows


async def test_a_node_deleted_meanwhile_is_not_missed(cluster: Cluster) -> None:
    await _loaded(cluster)
    cluster.frontend.registry.admin_delete(NODE)
    await cluster.frontend.embed(ADDRESS, "hello")
    await cluster.frontend.load_model(ADDRESS, MODEL)


@pytest.mark.parametrize(
    ("stopped", "left"),
    [
        ("qwen", set()),
        ("qwen#1", {("qwen", 0)}),
        ("", set()),
        ("another", {("qwen", 0), ("qwen", 1)}),
        ("llama-cpp", {("qwen", 0), ("qwen", 1)}),
    ],
)
async def test_stopping_a_model_drops_its_rows_at_once(
    cluster: Cluster, stopped: str, left: set[tuple[str, int]]
) -> None:
    await _loaded(cluster)
    await _loaded(cluster, replica=1, address="10.0.0.5:50053")
    await cluster.frontend.stop(NODE, stopped)
    assert cluster.rows.keys() == left


async def test_a_seed_frontends_rows_have_no_replica_index() -> None:
    cluster = await _cluster("seed")
    await _loaded(cluster)
    assert cluster.rows["qwen", 0].replica_index is None


# Staging and loading times.


async def test_files_are_staged_in_order_below_the_models_directory(cluster: Cluster, tmp_path: Path) -> None:
    weights, tokenizer = tmp_path / "w", tmp_path / "t"
    weights.write_bytes(b"weights")
    tokenizer.write_bytes(b"tokens")
    remote = await cluster.frontend.stage_model(
        NODE, "org/qwen", {"qwen.gguf": weights, "extra/tokenizer.json": tokenizer}
    )
    assert remote == {
        "qwen.gguf": "/node/models/org/qwen/qwen.gguf",
        "extra/tokenizer.json": "/node/models/org/qwen/extra/tokenizer.json",
    }
    [stager] = cluster.stagers
    assert stager.http_address == "gpu-1:50050"
    assert list(stager.stored.items()) == [
        ("models/org/qwen/qwen.gguf", b"weights"),
        ("models/org/qwen/extra/tokenizer.json", b"tokens"),
    ]
    assert stager.closed


async def test_a_stager_is_closed_when_a_file_cannot_be_staged(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await cluster.frontend.stage_model(NODE, "qwen", {"qwen.gguf": tmp_path / "missing"})
    assert cluster.stagers[0].closed


@pytest.mark.parametrize(
    ("generation", "gib", "limit_s"),
    [("seed", 4, 300), ("newer", 0, 300), ("newer", 4, 380), ("newer", 1100, 21600)],
)
async def test_loading_may_take_longer_the_more_was_staged(
    generation: Generation, gib: int, limit_s: float, tmp_path: Path
) -> None:
    cluster = await _cluster(generation)

    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(gib * 2**30)
    async with cluster.installing(BackendInstallReply(success=True, address=ADDRESS)):
        await cluster.frontend.install(NODE, "llama-cpp", model_id="qwen")
    cluster.machine.strangers[50052] = FakeBackend(hangs=frozenset({"load_model"}))
    cluster.frontend.stager = lambda address: NoBytes(address)
    await cluster.frontend.stage_model(NODE, "qwen", {"qwen.gguf": sparse})
    began_s = anyio.current_time()
    with pytest.raises(BackendUnavailable, match="DEADLINE_EXCEEDED"):
        await cluster.frontend.load_model(ADDRESS, MODEL)
    assert anyio.current_time() - began_s == pytest.approx(limit_s)


class NoBytes(Files):
    """A stager that reads nothing."""

    async def ensure(self, source: Path, key: str) -> str:
        return f"/node/{key}"


# Nodes.


async def test_a_node_that_is_there_is_found_at_once(cluster: Cluster) -> None:
    assert await cluster.frontend.wait_for_node("gpu-1") == NODE
    assert anyio.current_time() == 0


async def test_a_node_may_come_later(cluster: Cluster) -> None:
    registry = cluster.frontend.registry
    registry.auto_approve = False
    registry.admin_delete(NODE)
    registry.ids = lambda name, earlier: NodeId("another")

    async def come() -> None:
        await anyio.sleep(10)
        registry.take_in(RegisterRequest(name="gpu-1", address="a:1", http_address=""))
        await anyio.sleep(10)
        registry.approve("another")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(come)
        assert await cluster.frontend.wait_for_node("gpu-1", "pending") == "another"
        assert 10 <= anyio.current_time() < 11
        assert await cluster.frontend.wait_for_node("gpu-1") == "another"
        assert 20 <= anyio.current_time() < 21


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("gpu-1", "draining", "node gpu-1 is healthy; waited 60 s for draining"),
        ("gpu-2", "healthy", "node gpu-2 never registered; waited 60 s for healthy"),
    ],
)
async def test_a_node_that_never_comes_is_an_error(
    cluster: Cluster, name: str, status: str, text: str
) -> None:
    with pytest.raises(NodeNotThere) as caught:
        await cluster.frontend.wait_for_node(name, status)
    assert str(caught.value) == text
    assert anyio.current_time() == pytest.approx(60)
