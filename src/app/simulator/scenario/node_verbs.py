"""Verbs about nodes and what runs on them: what an admin, or the frontend's jobs, would do."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ....adapters.memory.frontend_nodes import NodeRow, NodeStatus
from ....domain.messages.subjects import NodeSubjects
from ....domain.node import NodeId
from ..failures import SimulationError
from ..housekeeping import Housekeeping
from ..live import LiveFrontend
from .verbs import verb

_KEPT_MESSAGES = 1000
_ASK_S = 30.0


@dataclass
class NodeVerbs:
    """Nodes are named by their names; `tasks` listens for `watch`."""

    live: LiveFrontend
    tasks: TaskGroup
    _heard: dict[str, deque[str]] = field(default_factory=dict)

    @verb
    async def nodes(self) -> object:
        """Every node: name, status, addresses, what is loaded on it."""
        await anyio.lowlevel.checkpoint()
        return [_told(row) for row in self.live.commands.registry.nodes.values()]

    @verb
    async def node(self, node: str) -> object:
        """One node, as `nodes` tells it."""
        await anyio.lowlevel.checkpoint()
        return _told(self.row(node))

    @verb
    async def wait(self, node: str, status: str = "healthy", timeout: float = 60) -> object:
        """Wait until the node has that status; a healthy one must also answer."""
        node_id = await self.live.commands.wait_for_node(node, status, timeout_s=timeout)
        if status == NodeStatus.HEALTHY:
            await self.live.commands.wait_until_it_answers(node_id, timeout_s=timeout)
        return _told(self.row(node))

    @verb
    async def approve(self, node: str) -> object:
        """Let a pending node take work."""
        await anyio.lowlevel.checkpoint()
        self.live.commands.registry.approve(self.id(node))
        return _told(self.row(node))

    @verb
    async def drain(self, node: str) -> object:
        """Give the node no new work; a newer frontend forgets what is loaded there."""
        await anyio.lowlevel.checkpoint()
        row = self.row(node)
        row.status = NodeStatus.DRAINING
        if not self.live.is_seed:
            row.models.clear()
        return _told(row)

    @verb
    async def forget(self, node: str) -> object:
        """Delete the node's row: its heartbeats are answered with 404."""
        await anyio.lowlevel.checkpoint()
        self.live.commands.registry.admin_delete(self.id(node))
        return {}

    @verb
    async def silence(self, node: str, seconds: float = 61) -> object:
        """Make the node's last heartbeat look `seconds` older, and let the health monitor pass."""
        row = self.row(node)
        row.last_heartbeat -= timedelta(seconds=seconds)
        await Housekeeping(self.live).monitor()
        return _told(row)

    @verb
    async def monitor(self) -> object:
        """One pass of the health monitor."""
        await Housekeeping(self.live).monitor()
        return await self.nodes()

    @verb
    async def reconcile(self) -> object:
        """One pass of the reconciler."""
        await Housekeeping(self.live).reconcile()
        return await self.nodes()

    @verb
    async def install(
        self,
        node: str,
        backend: str,
        model: str = "",
        replica: int = 0,
        uri: str = "",
        name: str = "",
        alias: str = "",
        force: bool = False,
        op: str = "",
    ) -> object:
        """Have a backend installed and started, as an admin or the router asks for it."""
        address = await self.live.commands.install(
            self.id(node),
            backend,
            model_id=model,
            galleries=self.live.galleries,
            replica_index=int(replica),
            uri=uri,
            name=name,
            alias=alias,
            force=force,
            op_id=op,
        )
        return {"address": address}

    @verb
    async def upgrade(self, node: str, backend: str) -> object:
        """Have a backend replaced by a fresh install."""
        galleries = self.live.galleries
        stopped = await self.live.commands.upgrade(self.id(node), backend, galleries=galleries)
        return {"stopped": list(stopped)}

    @verb
    async def delete_backend(self, node: str, backend: str) -> object:
        """Have a backend deleted, its processes stopped."""
        return {"stopped": list(await self.live.commands.delete_backend(self.id(node), backend))}

    @verb
    async def backends(self, node: str) -> object:
        """What the node has installed."""
        listed = await self.live.commands.list_backends(self.id(node))
        return [{"name": each.name, "digest": each.digest, "is_meta": each.is_meta} for each in listed]

    @verb
    async def running(self, node: str) -> object:
        """What the node says is up."""
        models = await self.live.commands.running_models(self.id(node))
        return [
            {"model": each.model_id, "replica": each.replica_index, "address": each.address}
            for each in models
        ]

    @verb
    async def unload(self, node: str, model: str) -> object:
        """Have a model's memory freed; its process lives on."""
        await self.live.commands.unload(self.id(node), model)
        return {}

    @verb
    async def stop_replica(self, node: str, key: str, address: str, force: bool = False) -> object:
        """Have exactly one replica (`model#N`) stopped."""
        await self.live.commands.stop_replica(self.id(node), key, address, force=force)
        return {}

    @verb
    async def stop_backend(self, node: str, backend: str = "", force: bool = False) -> object:
        """Publish a stop of a model, replica or backend; of everything without a name."""
        await self.live.commands.stop(self.id(node), backend, force=force)
        return {}

    @verb
    async def node_stop(self, node: str) -> object:
        """Have the worker shut down."""
        await self.live.commands.node_stop(self.id(node))
        return {}

    @verb
    async def delete_files(self, node: str, model: str) -> object:
        """Have a model's files removed from the node."""
        await self.live.commands.delete_model(self.id(node), model)
        return {}

    @verb
    async def request(self, node: str, subject: str, payload: str, timeout: float = _ASK_S) -> object:
        """Send any bytes to `nodes.<id>.<subject>` and tell the answer."""
        bus = self.live.commands.bus
        answer = await bus.request(self._subject(node, subject), payload.encode(), timeout_s=timeout)
        return {"payload": answer.decode(errors="replace")}

    @verb
    async def publish(self, node: str, subject: str, payload: str = "") -> object:
        """Publish any bytes on `nodes.<id>.<subject>`."""
        await self.live.commands.bus.publish(self._subject(node, subject), payload.encode())
        return {}

    @verb
    async def watch(self, node: str, subject: str) -> object:
        """Listen on `nodes.<id>.<subject>`; `heard` tells what came."""
        subscription = await self.live.commands.bus.subscribe(self._subject(node, subject))
        kept = self._heard[f"{node} {subject}"] = deque[str](maxlen=_KEPT_MESSAGES)

        async def listen() -> None:
            async for message in subscription:
                kept.append(message.payload.decode(errors="replace"))

        self.tasks.start_soon(listen)
        return {}

    @verb
    async def heard(self, node: str, subject: str) -> object:
        """The messages that came on a watched subject, JSON ones read."""
        await anyio.lowlevel.checkpoint()
        import json

        try:
            return [json.loads(each) for each in self._heard[f"{node} {subject}"]]
        except (KeyError, ValueError) as error:
            raise SimulationError(f"{subject} of {node}: not watched, or no JSON: {error}") from error

    @verb
    async def health(self, address: str) -> object:
        """Ask a backend whether it is well."""
        await self.live.commands.inference.health(address, timeout_s=2)
        return {"healthy": True}

    def id(self, node: str) -> NodeId:
        """The id of the node called `node`."""
        return self.row(node).id

    def row(self, node: str) -> NodeRow:
        """The registry's row of the node called `node`."""
        row = self.live.commands.registry.named(node)
        if row is None:
            known = ", ".join(row.name for row in self.live.commands.registry.nodes.values()) or "none"
            raise SimulationError(f"node {node} is not registered; registered: {known}")
        return row

    def _subject(self, node: str, subject: str) -> str:
        prefix = NodeSubjects(self.id(node)).node_stop.removesuffix(".stop")
        return f"{prefix}.{subject}"


def _told(row: NodeRow) -> Mapping[str, Any]:
    return {
        "name": row.name,
        "id": row.id,
        "status": row.status.value,
        "address": row.address,
        "http_address": row.http_address,
        "labels": dict(row.labels),
        "total_vram": row.total_vram,
        "available_vram": row.available_vram,
        "total_ram": row.total_ram,
        "total_disk": row.total_disk,
        "capability": row.capability,
        "vram_budget": row.vram_budget,
        "max_replicas_per_model": row.max_replicas_per_model,
        "models": [
            {
                "model": model.model_name,
                "replica": index,
                "address": model.address,
                "in_flight": model.in_flight,
                "backend": model.backend_type,
            }
            for (_, index), model in row.models.items()
        ],
    }
