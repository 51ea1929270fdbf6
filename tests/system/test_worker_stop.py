"""How a real worker process goes down: drained, deregistered, with nothing left behind."""

import signal
from collections.abc import Iterator

import anyio
import pytest

from localai_worker.app.simulator.failures import CommandRefused
from localai_worker.app.simulator.local_cluster import LocalCluster
from localai_worker.domain.messages.node_status import LoadedModel
from tests.system import tiny_backends
from tests.system.nodes import Node, children_of, exit_code, group_of, start_node, until


@pytest.fixture
def seed(cluster: LocalCluster) -> Iterator[None]:
    """A frontend that keeps its rows when a node drains; newer ones forget them."""
    cluster.registry.generation = "seed"
    yield
    cluster.registry.generation = "newer"


async def test_signals_end_a_worker_in_good_order(cluster: LocalCluster) -> None:
    """H-16, N-B2: drain, stop everything, deregister, drain again; the exit code is 0 for both signals."""

    async def live_and_end(number: signal.Signals) -> None:
        node = await start_node(cluster, number.name)
        tiny_backends.healthy(node.backends, "tiny", before="echo $$ > pid")
        await node.install("tiny")
        pid = int((node.backends / "tiny" / "pid").read_text())
        assert await node.signalled(number) == 0, node.log
        await ended_in_good_order(node, pid)
        assert f"{number.name}: stopping" in node.log

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(live_and_end, signal.SIGTERM)
        tasks.start_soon(live_and_end, signal.SIGINT)


async def test_the_frontends_node_stop_ends_a_worker_in_good_order(cluster: LocalCluster) -> None:
    node = await start_node(cluster, "dismissed")
    tiny_backends.healthy(node.backends, "tiny", before="echo $$ > pid")
    await node.install("tiny")
    pid = int((node.backends / "tiny" / "pid").read_text())
    await cluster.frontend.node_stop(node.id)
    assert await exit_code(node.worker) == 0
    await ended_in_good_order(node, pid)


async def ended_in_good_order(node: Node, pid: int) -> None:
    calls = [name for name in node.endpoints if name != "heartbeat"]
    assert [name for name in calls if name != "models"] == ["drain", "deregister", "drain"]
    assert "models" in calls[1:-2]
    assert node.cluster.registry.row(node.id).status == "draining"
    assert group_of(pid) == []
    lines = [line.partition(" ")[2] for line in node.log.splitlines()]
    order = [
        "stopping: draining",
        "backend stopped: replica=tiny#0",
        "deregistered",
        "app.worker: stopped",
    ]
    found = [next(index for index, line in enumerate(lines) if text in line) for text in order]
    assert found == sorted(found)
    assert "Traceback" not in node.log


@pytest.mark.usefixtures("seed")
async def test_a_second_signal_ends_the_wait_for_requests_in_flight(cluster: LocalCluster) -> None:
    node = await start_node(cluster, "hurried")
    cluster.registry.put_model(node.id, LoadedModel(model_name="busy", in_flight=1))
    node.worker.stopping = True
    node.worker.process.send_signal(signal.SIGTERM)
    await until(lambda: "models" in node.endpoints)
    assert node.worker.process.returncode is None
    assert await node.signalled(signal.SIGTERM) == 0
    assert "SIGTERM again: stopping without waiting for requests in flight" in node.log
    assert node.endpoints[-2:] == ["deregister", "drain"]


async def test_a_client_of_a_backend_is_waited_for(cluster: LocalCluster) -> None:
    """H-30, S-K15: this frontend drops its rows as it drains, so only the node knows of the request."""
    node = await start_node(cluster, "asked")
    tiny_backends.healthy(node.backends, "tiny")
    host, _, port = (await node.install("tiny")).rpartition(":")
    async with await anyio.connect_tcp(host, int(port)):
        node.worker.stopping = True
        node.worker.process.send_signal(signal.SIGTERM)
        await until(lambda: node.endpoints.count("models") >= 3)
        assert node.worker.process.returncode is None
        assert not node.said("backend stopped")
    assert await exit_code(node.worker) == 0
    assert node.said("backend stopped: replica=tiny#0")
    assert not node.said("still in flight")


async def test_a_backend_that_is_starting_is_ended_and_its_install_answered(cluster: LocalCluster) -> None:
    """G-W19: the frontend hears why, it does not wait out its timeout."""
    node = await start_node(cluster, "abrupt")
    tiny_backends.silent(node.backends, "silent")
    refusals: list[str] = []

    async def install() -> None:
        with pytest.raises(CommandRefused) as refused:
            await node.install("silent")
        refusals.append(refused.value.error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(install)
        await until(lambda: children_of(node.worker))
        children = children_of(node.worker)
        assert await node.signalled(signal.SIGTERM) == 0
    assert len(refusals) == 1
    assert "stopped during startup" in refusals[0] or "shutting down" in refusals[0]
    assert not any(child.is_running() for child in children)
