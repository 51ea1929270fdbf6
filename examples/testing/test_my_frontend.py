"""How to test code that drives LocalAI workers: no server, no process, and no waiting.

    python -m pytest examples/testing

`localai_node` and `localai_bus` are fixtures that come with localai-worker.
"""

import anyio
import pytest

from localai_worker.app.testing import (
    VIRTUAL_TIME,
    AnyioBackend,
    FakeBackend,
    FakeProgram,
    MemoryNode,
    memory_node,
)
from localai_worker.domain.messages.backend import BackendStopRequest
from localai_worker.domain.messages.model import ModelStopReply, ModelStopRequest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    """Every wait below takes no time at all."""
    return VIRTUAL_TIME


async def test_a_worker_in_three_lines() -> None:
    async with memory_node() as node:
        node.offer("llama-cpp")
        assert (await node.install("llama-cpp", "phi-4")).address == "gpu1.example.com:50052"


async def test_a_backend_that_takes_a_minute_to_start_is_reported(localai_node: MemoryNode) -> None:
    localai_node.offer("slow", FakeProgram(listens_after_s=60))
    reply = await localai_node.install("slow", "phi-4")
    assert not reply.success
    assert localai_node.keys == []


async def test_a_stop_ends_a_backend_that_hangs_in_free(localai_node: MemoryNode) -> None:
    localai_node.offer("stubborn", FakeProgram(backend=FakeBackend(hangs=frozenset({"free"})), term_s=3600))
    address = (await localai_node.install("stubborn", "phi-4")).address
    reply = await localai_node.ask(
        localai_node.subjects.model_stop,
        ModelStopRequest(model_name="phi-4", process_key="phi-4#0", expected_address=address),
        ModelStopReply,
        timeout_s=10,  # what a frontend waits
    )
    assert reply.terminated
    assert localai_node.machine.running == ()


async def test_a_node_that_the_frontend_has_forgotten_comes_back(localai_node: MemoryNode) -> None:
    registry = localai_node.registry
    registry.nodes.clear()  # the frontend's database is gone
    await anyio.sleep(60)
    assert [row.name for row in registry.nodes.values()] == ["node-1"]


class TestWithSettings:
    """A fixture sets the worker up otherwise."""

    @pytest.fixture
    def localai_environment(self) -> dict[str, str]:
        return {"LOCALAI_NODE_NAME": "gpu-7", "LOCALAI_MAX_REPLICAS_PER_MODEL": "2"}

    async def test_it_registers_as_told(self, localai_node: MemoryNode) -> None:
        row = localai_node.registry.named("gpu-7")
        assert row is not None
        assert row.max_replicas_per_model == 2

    async def test_a_stop_of_the_model_means_all_its_replicas(self, localai_node: MemoryNode) -> None:
        localai_node.offer("llama-cpp")
        for replica in (0, 1):
            await localai_node.install("llama-cpp", "phi-4", replica_index=replica)
        assert localai_node.keys == ["phi-4#0", "phi-4#1"]
        await localai_node.bus.publish(
            localai_node.subjects.stop, BackendStopRequest(backend="phi-4").to_wire()
        )
        await anyio.sleep(30)
        assert localai_node.keys == []
