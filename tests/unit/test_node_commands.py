"""A simulated frontend stops, upgrades and deletes on a real worker in memory; what it makes of answers."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from localai_worker.adapters.memory.backend_client import InMemoryBackendClient
from localai_worker.app.simulator.failures import CommandRefused
from localai_worker.app.simulator.frontend import SimulatedFrontend
from localai_worker.app.testing import GALLERY, MemoryNode, memory_node
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.messages.model import RunningModel
from localai_worker.domain.messages.node_status import LoadedModel
from localai_worker.domain.node import NodeId
from localai_worker.domain.ports.backend_client import ModelToLoad

ADDRESS = "gpu1.example.com:50052"
MODEL = ModelToLoad(name="qwen.gguf", file="/node/models/qwen/qwen.gguf")


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@dataclass
class Cluster:
    node: MemoryNode
    frontend: SimulatedFrontend

    @property
    def id(self) -> NodeId:
        return self.node.worker.enrolment.node_id

    @property
    def rows(self) -> list[tuple[str, int]]:
        return list(self.node.registry.row(self.id).models)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """A node with the backend `llama-cpp` running as `qwen#0`, its row in the frontend."""
    async with memory_node() as node:
        node.offer("llama-cpp")
        inference = InMemoryBackendClient(node.machine, "s3cret")
        frontend = SimulatedFrontend(bus=node.bus, registry=node.registry, inference=inference)
        cluster = Cluster(node, frontend)
        await frontend.install(cluster.id, "llama-cpp", model_id="qwen", galleries=(GALLERY,))
        row = LoadedModel(model_name="qwen", replica_index=0, address=ADDRESS)
        node.registry.put_model(cluster.id, row)
        yield cluster


async def test_the_inventory_is_what_the_node_says(cluster: Cluster) -> None:
    running = await cluster.frontend.running_models(cluster.id)
    assert running == (RunningModel(model_id="qwen", replica_index=0, address=ADDRESS),)


async def test_a_stopped_replica_loses_its_row_once_it_is_dead(cluster: Cluster) -> None:
    with pytest.raises(CommandRefused, match="address mismatch"):
        await cluster.frontend.stop_replica(cluster.id, "qwen#0", "gpu1.example.com:50060")
    assert cluster.rows == [("qwen", 0)]
    await cluster.frontend.stop_replica(cluster.id, "qwen#0", ADDRESS)
    assert cluster.rows == []
    assert cluster.node.keys == []


async def test_an_unload_frees_and_keeps_the_row(cluster: Cluster) -> None:
    await cluster.frontend.inference.load_model(ADDRESS, MODEL, timeout_s=1)
    await cluster.frontend.unload(cluster.id, "qwen")
    assert cluster.node.machine.processes[0].backend.model is None
    assert cluster.rows == [("qwen", 0)]
    (exchange,) = [each for each in cluster.frontend.exchanges if each.subject.endswith("unload")]
    assert json.loads(exchange.request) == {"model_name": "qwen"}


async def test_files_of_a_model_are_deleted(cluster: Cluster) -> None:
    weights = cluster.node.worker.files.roots.models / "qwen" / "qwen.gguf"
    cluster.node.parts.filesystem().put(weights, b"1")
    await cluster.frontend.delete_model(cluster.id, "qwen")
    assert cluster.node.parts.filesystem().get(weights) is None
    with pytest.raises(CommandRefused, match="escapes models directory"):
        await cluster.frontend.delete_model(cluster.id, "../secrets")


async def test_a_deleted_or_upgraded_backends_rows_go(cluster: Cluster) -> None:
    assert await cluster.frontend.upgrade(cluster.id, "llama-cpp", galleries=(GALLERY,)) == ("qwen#0",)
    assert cluster.rows == []
    assert cluster.node.directories == ["llama-cpp"]
    assert await cluster.frontend.delete_backend(cluster.id, "llama-cpp") == ()
    assert cluster.node.directories == []


async def test_rows_of_what_was_stopped_go_also_when_the_upgrade_fails(cluster: Cluster) -> None:
    cluster.node.parts.artifacts().offline = True
    with pytest.raises(CommandRefused, match="upgrading backend from gallery"):
        await cluster.frontend.upgrade(cluster.id, "llama-cpp", galleries=(GALLERY,))
    assert cluster.rows == []


async def test_a_seed_frontend_reads_no_keys_and_knows_no_newer_commands(cluster: Cluster) -> None:
    cluster.node.registry.generation = "seed"
    with pytest.raises(ValueError, match=r"models\.running"):
        await cluster.frontend.running_models(cluster.id)
    with pytest.raises(ValueError, match=r"model\.stop"):
        await cluster.frontend.stop_replica(cluster.id, "qwen#0", ADDRESS)
    with pytest.raises(ValueError, match=r"backend\.upgrade"):
        await cluster.frontend.upgrade(cluster.id, "llama-cpp")
    assert await cluster.frontend.delete_backend(cluster.id, "llama-cpp") == ()
    assert cluster.rows == [("qwen", 0)]
