"""A worker that is killed, and what the next one, or the keeper, makes of its backends."""

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import anyio
import pytest
from anyio import to_thread

from localai_worker.adapters.network.local import LocalNetwork
from localai_worker.app.simulator.local_cluster import LocalCluster
from localai_worker.domain.messages.node_status import LoadedModel
from tests.system import tiny_backends
from tests.system.nodes import Node, exit_code, log_of, start_node, until, with_python
from tests.system.survivors import (
    Survivor,
    end_survivors,
    journaled,
    keepers,
    kill,
    living,
    next_life,
    state_of,
    survivors,
    until_slowly,
)

Start = Callable[..., Awaitable[Node]]


@pytest.fixture
async def start(cluster: LocalCluster) -> AsyncIterator[Start]:
    """Starts nodes of which nothing is left after the test."""
    names: list[str] = []

    async def start(name: str, environment: Mapping[str, str] | None = None) -> Node:
        names.append(name)
        return await start_node(cluster, name, {"LOCALAI_BACKEND_STOP_GRACE": "1s", **(environment or {})})

    yield start
    for worker in cluster.workers:
        if worker.name in names:
            worker.stopping = True
            if worker.process.returncode is None:
                worker.process.kill()
                await worker.process.wait()
            await to_thread.run_sync(end_survivors, worker)


async def only_survivor(node: Node) -> Survivor:
    (survivor,) = await to_thread.run_sync(survivors, node.worker)
    return survivor


async def test_a_killed_worker_finds_its_backend_again_and_nobody_notices(
    cluster: LocalCluster, start: Start
) -> None:
    """G-W8, S-K14: same process, same port, the client stays connected, the frontend keeps its rows; and a
    second worker on the same directory is refused.
    """
    node = await start("phoenix")
    tiny_backends.healthy(node.backends, "tiny")
    address = await node.install("tiny", "qwen")
    before = await only_survivor(node)
    row = LoadedModel(model_name="qwen", address=address, state="loaded", in_flight=1)
    cluster.registry.put_model(node.id, row)
    async with await anyio.connect_tcp("127.0.0.1", before.port):
        await kill(node)
        registered = [call for call in cluster.registry.calls if call.endpoint == "register"]
        again = await next_life(node)
        assert await only_survivor(again) == before
        assert await again.install("tiny", "qwen") == address
        assert again.id == node.id
        assert again.said(f"backend adopted: replica=qwen#0 backend=tiny pid={before.pid} port={before.port}")
        assert again.said("resumed: node=")
        assert [call for call in cluster.registry.calls if call.endpoint == "register"] == registered
        assert cluster.registry.row(node.id).models["qwen", 0].in_flight == 1
        environment = {"LOCALAI_WORKER_STATE_PATH": str(state_of(again.worker))}
        second = await cluster.start_worker("usurper", with_python(environment))
        assert await exit_code(second) == 1
        assert f"belongs to a worker that runs already (process {again.worker.process.pid})" in log_of(second)
    cluster.registry.add_in_flight(node.id, "qwen", -1)
    assert await again.worker.stop() == 0
    assert living(before.pid) == []
    assert journaled(again.worker) == set()
    await until_slowly(lambda: not keepers(again.worker))
    assert "Traceback" not in again.log


async def test_a_signal_with_keep_backends_leaves_them_to_the_next_worker(start: Start) -> None:
    """The way to upgrade a worker under load."""
    node = await start("renewed", {"LOCALAI_WORKER_KEEP_BACKENDS": "true"})
    tiny_backends.healthy(node.backends, "tiny")
    address = await node.install("tiny")
    before = await only_survivor(node)
    calls = len(node.endpoints)
    assert await node.signalled(signal.SIGTERM) == 0, node.log
    assert set(node.endpoints[calls:]) <= {"heartbeat"}
    assert "stopping: 1 replica(s) stay up for the next worker" in node.log
    again = await next_life(node, LOCALAI_WORKER_KEEP_BACKENDS="false")
    assert await only_survivor(again) == before
    assert await again.install("tiny") == address
    assert await again.worker.stop() == 0
    assert living(before.pid) == []


async def test_the_keeper_ends_what_no_worker_comes_back_for(start: Start) -> None:
    """G-F20: a backend that ignores TERM, the child that it left behind, and one that is starting."""
    node = await start("lost", {"LOCALAI_WORKER_ADOPTION_WINDOW": "1s"})
    tiny_backends.stubborn(node.backends, "stubborn")
    tiny_backends.healthy(node.backends, "starting", before="sleep 600")
    await node.install("stubborn")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.install, "starting")
        await until_slowly(lambda: len(survivors(node.worker)) == 2)
        leaders = {survivor.pid for survivor in survivors(node.worker)}
        (keeper,) = keepers(node.worker)
        await kill(node)
        tasks.cancel_scope.cancel()
    await until_slowly(lambda: not any(living(leader) for leader in leaders))
    await until_slowly(lambda: not keepers(node.worker))
    told = (state_of(node.worker) / "keeper.log").read_text()
    assert f"keeper {keeper}: no worker came back: ending process groups {sorted(leaders)}" in told
    assert journaled(node.worker) == set()


async def test_a_stranger_on_the_port_of_a_dead_backend_is_never_taken_for_it(start: Start) -> None:
    """N-B16, G-W16: it even answers Health as the backend would."""
    node = await start("haunted")
    directory = tiny_backends.healthy(node.backends, "tiny")
    address = await node.install("tiny")
    before = await only_survivor(node)
    await kill(node)
    end_survivors(node.worker)
    await until_slowly(lambda: living(before.pid) == [])
    command = [sys.executable, str(directory / "server.py"), "OK", "--addr", f"0.0.0.0:{before.port}"]
    async with await anyio.open_process(command, start_new_session=True) as stranger:
        try:
            await until(lambda: not LocalNetwork().can_listen(before.port))
            again = await next_life(node)
            gone = f"backend is gone, it ended while no worker ran: replica=tiny#0 pid={before.pid}"
            assert gone in again.log
            assert await again.install("tiny") != address
            assert await again.worker.stop() == 0
            assert stranger.returncode is None
        finally:
            stranger.kill()
