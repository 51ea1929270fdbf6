"""The simulated frontend at work: it routes requests, places models, stages, loads, and keeps its cluster.

Sources: LocalAI core/services/nodes/{router,health,reconciler}.go (storage-and-frontend sheet section 2).
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from ...domain.errors import BackendUnavailable, BackendUnhealthy, WorkerError
from ...domain.galleries import Gallery
from ...domain.node import NodeId
from .cluster import Cluster, ModelPolicy, NoNodeFor, Place
from .failures import SimulationError
from .frontend import SimulatedFrontend
from .inference import Inference, ResultStager, Rpc
from .model_options import ModelSpec, ModelStaging

log = logging.getLogger(__name__)

PROBE_S = 2.0  # before a request is sent to a replica
EVICTIONS = 5  # attempts to make room, half a second apart
_EVICTION_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Replica:
    """A loaded replica: where it is, where it answers, where its files lie there."""

    model: str
    place: Place
    address: str
    model_path: str = ""

    @property
    def key(self) -> str:
        """`model#index`, as the worker knows its process."""
        return f"{self.model}#{self.place[1]}"


@dataclass
class LiveFrontend:
    """A frontend with models of its own, below the directory `models`, and galleries to install from.

    `rpc` calls backends. Both generations of the protocol are spoken, as the registry's generation says.
    """

    commands: SimulatedFrontend
    rpc: Rpc
    models: Path
    galleries: Sequence[Gallery] = ()
    specs: dict[str, ModelSpec] = field(default_factory=dict)
    cluster: Cluster = field(init=False)
    _paths: dict[str, str] = field(default_factory=dict)  # the model's directory on the node, by address
    _loading: dict[str, anyio.Lock] = field(default_factory=dict)  # by model, as the advisory lock

    def __post_init__(self) -> None:
        self.cluster = Cluster(self.commands.registry)

    @property
    def is_seed(self) -> bool:
        """Which generation is played."""
        return self.commands.registry.generation == "seed"

    def know(self, spec: ModelSpec, *, min_replicas: int = 0, max_replicas: int = 0) -> None:
        """Have a model in the configuration."""
        self.specs[spec.name] = spec
        self.cluster.policies[spec.name] = ModelPolicy(
            model=spec.name,
            backend=spec.backend,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            selector=spec.selector,
            vram_bytes=spec.size_bytes,
        )

    async def route(self, model: str) -> Replica:
        """The replica that answers the next request: one that is loaded and healthy, else a new one.

        Raises:
            NoNodeFor: no node can take it.
            WorkerError: it could not be installed, staged or loaded.
        """
        if (found := await self._warm(model)) is not None:
            return found
        async with self._loading.setdefault(model, anyio.Lock()):
            return await self._warm(model) or await self.load(model)

    async def load(self, model: str, node: NodeId | None = None, replica: int | None = None) -> Replica:
        """Bring a new replica up, on `node` and at index `replica` where they are given.

        Raises:
            NoNodeFor, WorkerError: as `route`.
        """
        place = await self._place(model, node, replica)
        try:
            return await self._load_at(self._spec(model), place)
        finally:
            self.cluster.release(model, place)

    async def infer(self, model: str, rpc: str, fields: Mapping[str, object]) -> dict[str, Any]:
        """One inference request; the answer's fields, with `result` where a file was written.

        Raises:
            WorkerError: routing, staging or the call failed. A connection that failed drops the row.
        """
        replica = await self.route(model)
        stager = self.commands.stager_for(replica.place[0])
        with tempfile.TemporaryDirectory(prefix="localai-worker-result-") as scratch:
            try:
                if not isinstance(stager, ResultStager):
                    raise SimulationError("this stager brings no results back")
                request = Inference(self.rpc, stager, replica.address, replica.model_path, self.models)
                with self.commands.in_flight(replica.address):
                    answer = await request.call(rpc, fields, Path(scratch) / "result")
            except BackendUnavailable as error:
                if error.code == "UNAVAILABLE":
                    self.cluster.drop(model, replica.place)
                raise
            finally:
                with anyio.CancelScope(shield=True):
                    await stager.close()
        self.cluster.used(model, replica.place, anyio.current_time())
        return answer

    async def stop(self, model: str) -> tuple[NodeId, ...]:
        """Stop a model wherever it is loaded; the nodes that were told."""
        nodes = tuple(dict.fromkeys(place[0] for place, _ in self.cluster.replicas(model)))
        for place, row in tuple(self.cluster.replicas(model)):
            await self._free(row.address)
            self.cluster.drop(model, place)
        for node_id in nodes:
            await self.commands.stop(node_id, model)
        return nodes

    async def evict(self, model: str, place: Place) -> None:
        """Make room: the row goes first, then the memory. Nothing stops the process."""
        self.cluster.drop(model, place)
        await self.commands.unload(place[0], model)

    async def delete_model(self, model: str) -> tuple[NodeId, ...]:
        """Have the model's files removed from every healthy node that has it loaded."""
        nodes = tuple(dict.fromkeys(place[0] for place, _ in self.cluster.replicas(model)))
        for node_id in nodes:
            try:
                await self.commands.delete_model(node_id, model)
            except WorkerError as error:  # as the frontend: only logged
                log.warning("model files not deleted: node=%s model=%s error=%s", node_id, model, error)
        return nodes

    async def _warm(self, model: str) -> Replica | None:
        """A loaded replica that answers now; those that do not lose their rows."""
        self._spec(model)
        while (picked := self.cluster.pick(model)) is not None:
            place, row = picked
            try:
                await self.commands.inference.health(row.address, timeout_s=PROBE_S)
            except (BackendUnavailable, BackendUnhealthy) as error:
                log.warning("replica does not answer: model=%s node=%s error=%s", model, place[0], error)
                self.cluster.drop(model, place)
            else:
                return Replica(model, place, row.address, self._paths.get(row.address, ""))
        return None

    async def _place(self, model: str, node: NodeId | None, replica: int | None) -> Place:
        policy = self.cluster.policies[self._spec(model).name]
        rows = [row for row in self.commands.registry.nodes.values() if node in {None, row.id}]
        if node is not None and replica is not None:
            return node, replica
        for attempt in range(EVICTIONS + 1):
            try:
                return self.cluster.place(policy, rows)
            except NoNodeFor:
                victim = self.cluster.victim(rows)
                if victim is None or attempt == EVICTIONS:
                    raise
                await self.evict(*victim)
                await anyio.sleep(_EVICTION_PAUSE_S)
        raise AssertionError("the last attempt raises or returns")

    async def _load_at(self, spec: ModelSpec, place: Place) -> Replica:
        node_id, index = place
        address = await self.commands.install(
            node_id,
            spec.backend,
            model_id=spec.name,
            galleries=self.galleries,
            replica_index=0 if self.is_seed else index,
        )
        stager = self.commands.stager_for(node_id)
        try:
            staging = ModelStaging(self.models, spec, stager.ensure, directories=not self.is_seed)
            told = await staging.stage()
        except WorkerError as error:
            raise SimulationError(f"staging model files for node {node_id}: {error}") from error
        finally:
            with anyio.CancelScope(shield=True):
                await stager.close()
        answer = await self.rpc(address, "LoadModel", told, timeout_s=self.commands.load_s(address))
        if not answer.get("success"):
            raise SimulationError(f"LoadModel: {answer.get('message')}")
        self.commands.note_loaded(address)
        self.cluster.noted(spec.name, place, anyio.current_time())
        self._paths[address] = str(told.get("ModelPath", ""))
        return Replica(spec.name, place, address, self._paths[address])

    async def _free(self, address: str) -> None:
        try:
            await self.commands.inference.free(address, timeout_s=PROBE_S)
        except BackendUnavailable as error:
            log.debug("free failed: address=%s error=%s", address, error)

    def _spec(self, model: str) -> ModelSpec:
        if model not in self.specs:
            known = ", ".join(sorted(self.specs)) or "none"
            raise SimulationError(f"model {model} is not configured here; known: {known}")
        return self.specs[model]
