"""Commands about what runs on a node and what lies there, as a frontend sends them.

Source: LocalAI core/config/distributed_config.go; the timeouts are its.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...adapters.memory.frontend_registry import NodeRegistry
from ...domain.errors import WorkerError
from ...domain.galleries import Gallery
from ...domain.messages.backend import (
    BackendDeleteReply,
    BackendDeleteRequest,
    BackendUpgradeReply,
    BackendUpgradeRequest,
)
from ...domain.messages.model import (
    ModelDeleteReply,
    ModelDeleteRequest,
    ModelsRunningReply,
    ModelStopReply,
    ModelStopRequest,
    ModelUnloadReply,
    ModelUnloadRequest,
    RunningModel,
)
from ...domain.messages.subjects import NodeSubjects
from ...domain.messages.writing import EMPTY_REQUEST
from ...domain.node import NodeId
from ...domain.ports.bus import MessageBus
from .exchanges import Exchange
from .failures import CommandRefused
from .gallery_json import galleries_json
from .placements import Placements

UPGRADE_S = 15 * 60.0
UNLOAD_S = 30.0
DELETE_MODEL_S = 30.0
DELETE_S = 2 * 60.0
STOP_S = 10.0
RUNNING_S = 10.0

_KEPT_EXCHANGES = 1000


@dataclass(kw_only=True)
class NodeCommands:
    """The part of a frontend that stops, upgrades and deletes; it raises as `SimulatedFrontend` says.

    A seed frontend knows only unload and the two deletions: of the others it raises ValueError.
    """

    bus: MessageBus
    registry: NodeRegistry
    exchanges: deque[Exchange] = field(default_factory=lambda: deque(maxlen=_KEPT_EXCHANGES))
    _placements: Placements = field(init=False)

    def __post_init__(self) -> None:
        self._placements = Placements(self.registry)

    async def running_models(self, node_id: NodeId) -> tuple[RunningModel, ...]:
        """What the node says is up (newer)."""
        self._require_newer("models.running")
        subject = NodeSubjects(node_id).models_running
        reply = ModelsRunningReply.from_wire(await self._request(subject, EMPTY_REQUEST, timeout_s=RUNNING_S))
        if reply.error:
            raise CommandRefused(subject, reply.error)
        return reply.models

    async def unload(self, node_id: NodeId, model_id: str) -> None:
        """Have the model's memory freed; its processes and rows stay."""
        subject = NodeSubjects(node_id).model_unload
        request = ModelUnloadRequest(model_name=model_id)
        reply = ModelUnloadReply.from_wire(
            await self._request(subject, request.to_wire(), timeout_s=UNLOAD_S)
        )
        if not reply.success:
            raise CommandRefused(subject, reply.error)

    async def stop_replica(self, node_id: NodeId, key: str, address: str, *, force: bool = False) -> None:
        """Have the replica `key` (`model#N`) at `address` stopped; its row goes when it is dead (newer)."""
        self._require_newer("model.stop")
        subject = NodeSubjects(node_id).model_stop
        request = ModelStopRequest(
            model_name=key.rpartition("#")[0], process_key=key, expected_address=address, force=force
        )
        reply = ModelStopReply.from_wire(await self._request(subject, request.to_wire(), timeout_s=STOP_S))
        if not reply.terminated:
            raise CommandRefused(subject, reply.error)
        self._placements.stopped(node_id, key)

    async def delete_model(self, node_id: NodeId, model_id: str) -> None:
        """Have the model's staged files deleted."""
        subject = NodeSubjects(node_id).model_delete
        request = ModelDeleteRequest(model_name=model_id)
        reply = ModelDeleteReply.from_wire(
            await self._request(subject, request.to_wire(), timeout_s=DELETE_MODEL_S)
        )
        if not reply.success:
            raise CommandRefused(subject, reply.error)

    async def delete_backend(self, node_id: NodeId, backend: str) -> tuple[str, ...]:
        """Have the backend deleted; the keys of the processes that ended, whose rows a newer one drops."""
        subject = NodeSubjects(node_id).delete
        request = BackendDeleteRequest(backend=backend)
        reply = BackendDeleteReply.from_wire(
            await self._request(subject, request.to_wire(), timeout_s=DELETE_S)
        )
        return self._after_stops(node_id, subject, reply)

    async def upgrade(
        self, node_id: NodeId, backend: str, *, galleries: Sequence[Gallery] = ()
    ) -> tuple[str, ...]:
        """Have the backend replaced; the keys of the processes that ended, whose rows go (newer)."""
        self._require_newer("backend.upgrade")
        subject = NodeSubjects(node_id).upgrade
        request = BackendUpgradeRequest(backend=backend, backend_galleries=galleries_json(galleries))
        reply = BackendUpgradeReply.from_wire(
            await self._request(subject, request.to_wire(), timeout_s=UPGRADE_S)
        )
        return self._after_stops(node_id, subject, reply)

    def _after_stops(
        self, node_id: NodeId, subject: str, reply: BackendDeleteReply | BackendUpgradeReply
    ) -> tuple[str, ...]:
        """Drop the rows that the reply reports dead, also on a failure; a seed frontend reads no keys."""
        stopped = reply.stopped_process_keys if reply.reports_stopped_processes and not self._is_seed else ()
        for key in stopped:
            self._placements.stopped(node_id, key)
        if not reply.success:
            raise CommandRefused(subject, reply.error)
        return stopped

    def _require_newer(self, command: str) -> None:
        if self._is_seed:
            raise ValueError(f"a seed frontend knows no {command}")

    @property
    def _is_seed(self) -> bool:
        return self.registry.generation == "seed"

    async def _request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        try:
            reply = await self.bus.request(subject, payload, timeout_s=timeout_s)
        except WorkerError as error:
            self.exchanges.append(Exchange(subject, payload, failure=str(error)))
            raise
        self.exchanges.append(Exchange(subject, payload, reply))
        return reply

    async def _publish(self, subject: str, payload: bytes) -> None:
        await self.bus.publish(subject, payload)
        self.exchanges.append(Exchange(subject, payload))
