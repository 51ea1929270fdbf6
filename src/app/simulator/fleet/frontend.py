"""The frontend of a fleet: it routes requests, loads models, reconciles and probes, as the real one does.

Sources: LocalAI core/services/nodes/{router,reconciler,health}.go; the intervals are theirs.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random

import anyio
from anyio.abc import TaskGroup

from ....adapters.memory.frontend import InMemoryFrontend
from ....adapters.memory.frontend_nodes import NodeRow, NodeStatus
from ....domain.errors import RequestTimedOut, WorkerError
from ....domain.keyed_locks import KeyedLocks
from ....domain.node import NodeId
from ....domain.ports.backend_client import ModelToLoad
from ..cluster import Cluster, ModelPolicy, NoNodeFor, Place
from ..frontend import SimulatedFrontend
from .figures import Figures
from .history import History
from .node_files import NodeFiles
from .registry import GALLERY

MONITOR_S = 15.0
RECONCILE_S = 30.0
PROBE_AFTER_S = 120.0
MISSES = 2  # of models.running, then a row goes
WATCHDOG_S = 20 * 60.0  # a model nobody asked for so long is stopped

SEED_PROBE_S = 1.0

_SAMPLED = 128  # nodes a placement looks at; all of them in a small fleet
_WAIT_S = 60.0  # a request waits so long for a cold load


@dataclass(eq=False)
class FleetFrontend:
    """Drives `sim` by what `cluster` decides. `run` plays the background jobs until cancelled.

    A restart of the frontend cancels `run` and everything asked of it; the registry may be lost with it.
    """

    sim: SimulatedFrontend
    registry: InMemoryFrontend
    cluster: Cluster
    files: NodeFiles
    random: Random
    figures: Figures
    history: History
    _loading: KeyedLocks[str] = field(default_factory=KeyedLocks)
    _tasks: TaskGroup | None = None
    _used_s: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        """The health monitor, the reconcilers and whatever is spawned meanwhile."""
        self._loading = KeyedLocks()
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._monitor)
                tasks.start_soon(self._reconcile)
                await anyio.sleep_forever()
        finally:
            self._tasks = None

    def forget_everything(self) -> None:
        """Lose the registry: every node and every row."""
        self.registry.nodes.clear()
        self.cluster = Cluster(self.registry, self.cluster.policies)

    def spawn(self, what: str, *args: object) -> None:
        """Start `serve`, `add_replica` or an operation by name, if the frontend runs."""
        if self._tasks is not None:
            self._tasks.start_soon(getattr(self, what), *args)

    async def serve(self, model: str) -> None:
        """One request of a user: the warm replica that has least to do, or a cold load first."""
        policy = self.cluster.policies[model]
        began_s = self._used_s[model] = anyio.current_time()
        self.figures.count("requests")
        with anyio.move_on_after(_WAIT_S) as patience:
            for _ in range(3):
                picked = self.cluster.pick(model)
                if picked is None:
                    async with self._loading.hold(model):
                        if self.cluster.pick(model) is None and not await self.add_replica(policy):
                            break
                    continue
                place, row = picked
                try:
                    await self.sim.embed(row.address, model)
                except WorkerError as error:
                    # A replica that is gone, or another model behind its address: the row goes.
                    self.history.add("frontend", f"drops {model} at {row.address}: {error}")
                    self.cluster.drop(model, place)
                    continue
                self.cluster.used(model, place, anyio.current_time())
                if self.files.is_to_use(place[0]):
                    self.spawn("operation", "input and result", place[0])
                    # And another frontend loads the model, as those do that have not seen it there.
                    self.spawn("operation", "stage again", place[0], model)
                self.figures.count("answered")
                self.figures.took("request", anyio.current_time(), anyio.current_time() - began_s)
                return
        self.figures.count("gave up waiting" if patience.cancelled_caught else "failed requests")

    async def add_replica(self, policy: ModelPolicy) -> bool:
        """Install, stage and load one more replica; False when that fails."""
        try:
            place = self.cluster.place(policy, self._some_nodes())
        except NoNodeFor as error:
            self.history.add("frontend", str(error))
            self.figures.count("no node")
            return await self._evict()
        try:
            return await self._load(policy, place)
        finally:
            self.cluster.release(policy.model, place)

    async def _load(self, policy: ModelPolicy, place: Place) -> bool:
        node_id, index = place
        key = f"{policy.model}#{index}"
        host = self.registry.row(node_id).name
        try:
            async with self.timed("backend.install"):
                address = await self.sim.install(
                    node_id, policy.backend, model_id=policy.model, replica_index=index, galleries=(GALLERY,)
                )
            async with self.timed("staging"):
                path = await self.files.stage(node_id, policy.model)
            async with self.timed("LoadModel"):
                await self.sim.load_model(address, ModelToLoad(name=policy.model, file=path))
        except WorkerError as error:
            self.history.add("frontend", f"load of {key} on {host} failed: {type(error).__name__}: {error}")
            self.figures.count(f"failed loads: {type(error).__name__}")
            if isinstance(error, RequestTimedOut):
                await self._reap(node_id, key)
            return False
        if node_id not in self.registry.nodes:
            return False
        self.cluster.noted(policy.model, place, anyio.current_time())
        self.history.add("frontend", f"loaded {key} on {host} at {address}")
        self.figures.count("loads")
        return True

    async def _reap(self, node_id: NodeId, key: str) -> None:
        """Have what may have come of an abandoned load stopped; a seed frontend leaves it."""
        if node_id in self.registry.nodes and not self._is_seed:
            await self.operation("stop", node_id, key)

    async def _evict(self) -> bool:
        """Unload the least recently used replica of some nodes, so that the next load finds room."""
        victim = self.cluster.victim(self._some_nodes())
        if victim is None:
            return False
        model, (node_id, index) = victim
        self.cluster.drop(model, (node_id, index))
        await self.operation("unload", node_id, model)
        return False

    async def operation(self, what: str, node_id: NodeId, *args: str) -> None:
        """One command of an administrator or a background job; a failure is only noted, as there."""
        try:
            async with self.timed(what):
                await self._command(what)(node_id, *args)
        except WorkerError as error:
            self.history.add("frontend", f"{what} {' '.join(args)} failed: {type(error).__name__}: {error}")
            self.figures.count(f"failed {what}")
        else:
            self.figures.count(what)

    def _command(self, what: str) -> Callable[..., Awaitable[object]]:
        """A seed frontend stops all of a model, and upgrades by the message that installs."""
        sim, is_seed = self.sim, self._is_seed
        install = partial(sim.install, galleries=(GALLERY,))
        commands: dict[str, Callable[..., Awaitable[object]]] = {
            "stop": sim.stop,
            "unload": sim.unload,
            "model.stop": self._stop_model_of if is_seed else sim.stop_replica,
            "delete model": sim.delete_model,
            "backend.delete": sim.delete_backend,
            "backend.upgrade": install if is_seed else partial(sim.upgrade, galleries=(GALLERY,)),
            "backend.list": sim.list_backends,
            "install backend": install,
            "input and result": self.files.use,
            "stage again": self.files.stage,
        }
        return commands[what]

    async def _stop_model_of(self, node_id: NodeId, key: str, _address: str) -> None:
        await self.sim.stop(node_id, key.rpartition("#")[0])

    @property
    def _is_seed(self) -> bool:
        return self.registry.generation == "seed"

    @asynccontextmanager
    async def timed(self, command: str) -> AsyncIterator[None]:
        """Note how long the command took, if it came to a good end."""
        began_s = anyio.current_time()
        yield
        self.figures.took(command, anyio.current_time(), anyio.current_time() - began_s)

    async def _monitor(self) -> None:
        while True:
            await anyio.sleep(MONITOR_S)
            self.registry.monitor(self.registry.clock.now())

    async def _reconcile(self) -> None:
        while True:
            await anyio.sleep(RECONCILE_S)
            now_s = anyio.current_time()
            for policy in self.cluster.policies.values():
                for _ in range(self.cluster.missing(policy)):
                    self.spawn("_scale_up", policy)
                if (place := self.cluster.superfluous(policy, now_s)) is not None:
                    self.cluster.drop(policy.model, place)
                    self.spawn("operation", "unload", place[0], policy.model)
                elif not policy.min_replicas and now_s - self._used_s.get(policy.model, now_s) > WATCHDOG_S:
                    self._used_s.pop(policy.model)
                    self._stop_everywhere(policy.model)
            for row in list(self.registry.nodes.values()):
                if row.status is NodeStatus.HEALTHY and self.cluster.unprobed(row, now_s - PROBE_AFTER_S):
                    self.spawn("_probe", row)

    async def _scale_up(self, policy: ModelPolicy) -> None:
        async with self._loading.hold(policy.model):
            if self.cluster.missing(policy):
                await self.add_replica(policy)

    def _stop_everywhere(self, model: str) -> None:
        for place, _ in list(self.cluster.replicas(model)):
            self.cluster.drop(model, place)
            self.spawn("operation", "stop", place[0], model)

    async def _probe(self, row: NodeRow) -> None:
        """Ask a node what runs there; rows it does not confirm go after `MISSES` times.

        A seed frontend asks the backends, and drops a row that misses once.
        """
        due = self.cluster.unprobed(row, anyio.current_time() - PROBE_AFTER_S)
        if self._is_seed:
            for model, index in due:
                await self._probe_backend(row, model, index)
            return
        try:
            async with self.timed("models.running"):
                running = await self.sim.running_models(row.id)
        except WorkerError:
            self.figures.count("failed models.running")
            return
        up = {(model.model_id, model.replica_index, model.address) for model in running}
        for model, index in due:
            loaded = row.models.get((model, index))
            alive = loaded is not None and (model, index, loaded.address) in up
            now_s = anyio.current_time()
            self.cluster.probed(model, (row.id, index), alive=alive, limit=MISSES, now_s=now_s)

    async def _probe_backend(self, row: NodeRow, model: str, index: int) -> None:
        loaded = row.models.get((model, index))
        if loaded is None:
            return
        try:
            await self.sim.inference.health(loaded.address, timeout_s=SEED_PROBE_S)
        except WorkerError:
            alive = False
        else:
            alive = True
        now_s = anyio.current_time()
        self.cluster.probed(model, (row.id, index), alive=alive, limit=1, now_s=now_s)

    def _some_nodes(self) -> list[NodeRow]:
        rows = list(self.registry.nodes.values())
        return rows if len(rows) <= _SAMPLED else self.random.sample(rows, _SAMPLED)
