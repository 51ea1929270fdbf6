"""SIGKILL at random points of a worker's life, again and again, with real backends.

The seed of a run is printed; `LOCALAI_TEST_SEED` replays it (as far as a real machine can be replayed).
"""

import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import pytest
from anyio import to_thread

from localai_worker.app.simulator.local_cluster import LocalCluster
from localai_worker.domain.errors import WorkerError
from localai_worker.domain.file_names import private_name
from tests.system import tiny_backends
from tests.system.nodes import Node, start_node
from tests.system.survivors import (
    Survivor,
    end_survivors,
    journaled,
    keepers,
    kill,
    next_life,
    state_of,
    survivors,
)

HEALTH_S = 10.0
PAYLOAD_BYTES = 8_000_000  # of a backend that is being installed: some time to be killed in


@dataclass
class Ordeal:
    """A node with `count` backends; a `round` gives commands, kills the worker and looks at the next one.

    `start_s` is how long a start takes here, so that kills come before, during and after one.
    """

    node: Node
    chance: random.Random
    count: int
    start_s: float = 1.0
    happened: Counter[str] = field(default_factory=Counter)
    fresh: list[str] = field(default_factory=list)

    async def prepare(self) -> None:
        for number in range(self.count):
            tiny_backends.healthy(self.node.backends, f"b{number}")
        began_s = anyio.current_time()
        await self.node.install("b0")
        self.start_s = anyio.current_time() - began_s

    async def round(self) -> None:
        """Some commands at once, SIGKILL in the middle of them, and everything must be as it should be."""
        async with anyio.create_task_group() as commands:
            for name in [f"b{number}" for number in range(self.count)]:
                what = self.chance.choice(["nothing", "start", "start", "stop"])
                self.happened[what] += 1
                if what != "nothing":
                    commands.start_soon(self.start if what == "start" else self.stop, name)
            for name in self.fresh:
                commands.start_soon(self.stop, name)
            if self.chance.random() < 0.5:
                self.happened["install"] += 1
                commands.start_soon(self.install)
            await anyio.sleep(self.chance.random() ** 2 * 1.3 * self.start_s)
            await kill(self.node)
            commands.cancel_scope.cancel()
        healthy, others = await self.left_behind()
        broken = self.damage_journal(healthy)
        self.node = await next_life(self.node)
        await self.check(healthy, others, broken)

    async def start(self, name: str) -> None:
        with suppress(WorkerError):  # nobody answers any more
            await self.node.install(name)

    async def stop(self, name: str) -> None:
        with suppress(WorkerError):
            await self.node.cluster.frontend.stop(self.node.id, name)

    async def install(self) -> None:
        """A real install, from a directory."""
        name = f"fresh{len(self.fresh)}"
        self.fresh.append(name)
        source = tiny_backends.healthy(self.node.worker.directory / "sources", name)
        await to_thread.run_sync((source / "weights").write_bytes, os.urandom(PAYLOAD_BYTES))
        with suppress(WorkerError):
            await self.node.cluster.frontend.install(
                self.node.id, name, model_id=name, uri=str(source), name=name
            )

    async def left_behind(self) -> tuple[set[Survivor], set[Survivor]]:
        """What lives while no worker does: the backends that are healthy, and all others."""
        found = await to_thread.run_sync(survivors, self.node.worker)
        healthy = set()
        for survivor in found:
            with suppress(WorkerError):
                address = f"127.0.0.1:{survivor.port}"
                await self.node.cluster.frontend.inference.health(address, timeout_s=HEALTH_S)
                healthy.add(survivor)
        self.happened["left healthy"] += len(healthy)
        self.happened["left otherwise"] += len(found - healthy)
        return healthy, found - healthy

    def damage_journal(self, healthy: set[Survivor]) -> set[int]:
        """Sometimes leave what a crash of the whole machine could: a broken record, a half-written one."""
        directory = state_of(self.node.worker) / "processes"
        if not directory.exists() or self.chance.random() < 0.7:
            return set()
        (directory / private_name("1.json", "0123")).write_bytes(b'{"vers')
        pids = sorted(survivor.pid for survivor in healthy if (directory / f"{survivor.pid}.json").exists())
        if not pids:
            return set()
        pid = self.chance.choice(pids)
        path = directory / f"{pid}.json"
        content = path.read_bytes()
        path.write_bytes(content[: self.chance.randrange(len(content))])
        self.happened["broken record"] += 1
        return {pid}

    async def check(self, healthy: set[Survivor], others: set[Survivor], broken: set[int]) -> None:
        """No healthy backend lost, no orphan, no stranger, nothing forgotten."""
        now = await to_thread.run_sync(survivors, self.node.worker)
        records = journaled(self.node.worker)
        models = await self.node.cluster.frontend.running_models(self.node.id)
        served = {(model.model_id, int(model.address.rpartition(":")[2])) for model in models}
        told = f"{self.node.log[-4000:]}\nnow: {now}\nbefore: {healthy} and {others}, broken: {broken}"
        # A backend that nobody could note before the kill is ended: nobody was told of it either.
        unnoted = {survivor for survivor in healthy if survivor.pid not in records and survivor not in now}
        adopted = healthy - unnoted
        assert adopted <= now, told
        assert {survivor.pid for survivor in unnoted} <= broken | self.never_noted(unnoted), told
        assert now - healthy <= others, told
        assert {survivor.pid for survivor in now} == records, told
        assert {(survivor.backend, survivor.port) for survivor in now} == served, told
        assert not {survivor.pid for survivor in now} & broken, told
        self.happened["adopted"] += len(now)
        for name, port in served:
            if self.chance.random() < 0.5:
                assert await self.node.install(name) == f"127.0.0.1:{port}", told

    def never_noted(self, unnoted: set[Survivor]) -> set[int]:
        """Those of which the worker said that they were in no journal, or had never answered in time."""
        return {
            survivor.pid
            for survivor in unnoted
            if self.node.said(f"ending it: process_group={survivor.pid}")
            or self.node.said(f"pid={survivor.pid}: backend at 127.0.0.1:{survivor.port}: DEADLINE_EXCEEDED")
        }


@pytest.fixture
async def node(cluster: LocalCluster) -> AsyncIterator[Node]:
    environment = {"LOCALAI_BACKEND_STOP_GRACE": "2s", "LOCALAI_WORKER_ADOPTION_WINDOW": "60s"}
    node = await start_node(cluster, f"ordeal-{os.getpid()}", environment)
    yield node
    (worker,) = (worker for worker in cluster.workers if worker.name == node.worker.name)
    worker.stopping = True
    if worker.process.returncode is None:
        worker.process.kill()
        await worker.process.wait()
    await to_thread.run_sync(end_survivors, worker)


@pytest.mark.parametrize(
    ("kills", "backends"),
    [
        pytest.param(2, 2, id="small"),
        pytest.param(50, 5, id="full", marks=[pytest.mark.large, pytest.mark.timeout(1800)]),
    ],
)
async def test_whenever_a_worker_is_killed_the_next_one_finds_everything(
    node: Node, kills: int, backends: int
) -> None:
    """G-W8, G-F20: and when no next one comes, the keeper leaves nothing."""
    seed = os.environ.get("LOCALAI_TEST_SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"LOCALAI_TEST_SEED={seed}")
    ordeal = Ordeal(node, random.Random(seed), backends)
    await ordeal.prepare()
    for _ in range(kills):
        await ordeal.round()
    print(dict(ordeal.happened))
    if kills < 10:
        return  # test_recovery.py has the keeper end things
    # The last one has something to leave behind, and nobody comes.
    last = ordeal.node = await next_life_with_short_window(ordeal.node)
    await last.install("b0")
    await kill(last)
    await until_settled(last)


async def next_life_with_short_window(node: Node) -> Node:
    await kill(node)
    return await next_life(node, LOCALAI_WORKER_ADOPTION_WINDOW="1s")


async def until_settled(node: Node) -> None:
    """No backend, no keeper, no record."""
    with anyio.fail_after(60):
        while await to_thread.run_sync(survivors, node.worker) or keepers(node.worker):
            await anyio.sleep(0.2)
    assert journaled(node.worker) == set()
