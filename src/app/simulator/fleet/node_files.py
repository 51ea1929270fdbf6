"""How files come to the nodes of a fleet: over HTTP, or through the object store where a node has it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio

from ....domain.node import NodeId
from ..frontend import SimulatedFrontend
from ..object_staging import ObjectStager
from .host import Host
from .inference import FleetFiles, model_file
from .object_desk import ObjectDesk, object_key

USED_EVERY_S = 300.0  # a node with the object store gets an input and a result that often at most


@dataclass
class NodeFiles:
    """The staging of one frontend. `over_http` and `desk` are the two ways."""

    sim: SimulatedFrontend
    hosts: Mapping[str, Host]
    over_http: FleetFiles
    desk: ObjectDesk
    _used_s: dict[NodeId, float] = field(default_factory=dict)

    def has_store(self, node_id: NodeId) -> bool:
        """Whether files come to the node through the object store."""
        return self._host(node_id).has_store

    async def stage(self, node_id: NodeId, model: str) -> str:
        """Have the node hold the model's file; its path there."""
        if self.has_store(node_id):
            return await self.desk.ensure_model(self._stager(node_id), model)
        host, generation = self._host(node_id), self.sim.registry.generation
        return await self.over_http.ensure(host.name, object_key(model), model_file(model), generation)

    def is_to_use(self, node_id: NodeId) -> bool:
        """Whether a request there has an input and a result now, through the object store."""
        now_s = anyio.current_time()
        if node_id not in self.sim.registry.nodes or not self.has_store(node_id):
            return False
        if now_s - self._used_s.get(node_id, -USED_EVERY_S) < USED_EVERY_S:
            return False
        self._used_s[node_id] = now_s
        return True

    async def use(self, node_id: NodeId) -> None:
        """One input, one result."""
        await self.desk.use(self._stager(node_id), self._host(node_id))

    def _host(self, node_id: NodeId) -> Host:
        return self.hosts[self.sim.registry.row(node_id).name]

    def _stager(self, node_id: NodeId) -> ObjectStager:
        return self.sim.object_stager(node_id, self.desk.store)
