"""The frontend's registry of nodes: who is known, in what state, with what loaded.

Sources: LocalAI core/services/nodes/{registry,health}.go, core/http/endpoints/localai/nodes.go.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ...domain.errors import WorkerError
from ...domain.messages.node_status import LoadedModel, NodeError
from ...domain.messages.registration import RegisterReply, RegisterRequest
from ...domain.node import NodeId
from ...domain.ports.clock import Clock
from .frontend_nodes import Generation, NodeRow, NodeStatus
from .loop_clock import LoopClock

STALE_AFTER = timedelta(seconds=60)

_NAME_BYTES = 255
_ADDRESS_BYTES = 512
_NO_TIME = "0001-01-01T00:00:00Z"  # what the frontend answers as created_at to a re-registration
_IDS = uuid.UUID("5f6a2f0a-4f0e-5c84-9a53-3f6f1d1b7a10")  # any constant: it makes the ids ours alone


@dataclass(eq=False)
class NodeCallRefused(WorkerError):
    """An answer that is not the one asked for; `by_token_check`: it came before the endpoint was reached.

    A status below 400 stands for a proxy that answers in the frontend's place.
    """

    status: int
    message: str
    by_token_check: bool = False

    def __str__(self) -> str:
        return f"{self.status} {self.message}"

    @property
    def body(self) -> NodeError:
        """The answer's body."""
        return NodeError(message=self.message, code=None if self.by_token_check else self.status)


def stable_id(name: str, earlier: int) -> NodeId:
    """The id of a node of this name, of which `earlier` rows were deleted by an administrator."""
    return NodeId(str(uuid.uuid5(_IDS, f"{name}/{earlier}")))


@dataclass(kw_only=True)
class NodeRegistry:
    """The rows of all nodes, what administrators do to them, and the health monitor.

    `credentials` mints the NATS pair that a newer frontend gives to a node it lets work. Methods that
    take a node id raise NodeCallRefused for an unknown one.
    """

    generation: Generation = "newer"
    auto_approve: bool = True
    credentials: Callable[[NodeId], tuple[str, str]] | None = None
    ids: Callable[[str, int], NodeId] = stable_id
    clock: Clock = field(default_factory=LoopClock)
    nodes: dict[NodeId, NodeRow] = field(default_factory=dict)
    _deleted: dict[str, int] = field(default_factory=dict)
    _ids: dict[str, NodeId] = field(default_factory=dict)  # by name, also of rows that are gone

    def named(self, name: str) -> NodeRow | None:
        """The row of the node called `name`."""
        return self.nodes.get(self._ids.get(name, NodeId("")))

    def row(self, node_id: str, *, status: int = 404, failure: str = "node not found") -> NodeRow:
        """The row of that id; `status` and `failure`: what is answered when there is none."""
        row = self.nodes.get(NodeId(node_id))
        if row is None:
            raise NodeCallRefused(status, failure)
        return row

    def take_in(self, request: RegisterRequest) -> RegisterReply:
        """Register a node; the name is its identity, so a known one keeps its id.

        A node that waits for approval goes on waiting, any other is healthy again.
        """
        _check(request)
        known = self.named(request.name)
        row = known or self._new_row(request)
        if known and (row.status is not NodeStatus.PENDING or self.auto_approve):
            row.status = NodeStatus.HEALTHY
        row.take_registration(request, self.generation, self.clock.now())
        jwt, seed = "", ""
        if self.credentials and self.generation == "newer" and row.status is not NodeStatus.PENDING:
            jwt, seed = self.credentials(row.id)
        return RegisterReply(
            id=row.id,
            name=row.name,
            node_type=row.node_type,
            status=row.status.value,
            created_at=_NO_TIME if known else _rfc3339(row.created_at),
            nats_jwt=jwt,
            nats_user_seed=seed,
        )

    def approve(self, node_id: str) -> None:
        """Let a pending node take work; the worker is not told."""
        row = self.row(node_id)
        if row.status is not NodeStatus.PENDING:
            raise NodeCallRefused(400, f"node is {row.status.value}, not pending")
        row.status = NodeStatus.HEALTHY

    def admin_delete(self, node_id: str) -> None:
        """Really delete the row: its heartbeats get 404, its name comes back under another id."""
        row = self.row(node_id)
        del self.nodes[row.id]
        self._deleted[row.name] = self._deleted.get(row.name, 0) + 1

    def monitor(self, now: datetime) -> None:
        """One pass of the health monitor, due every 15 seconds.

        A draining node is left alone. A node silent for longer than `STALE_AFTER` goes offline and loses
        its rows, a pending one too; an offline or unhealthy one that is heard again becomes healthy.
        """
        for row in self.nodes.values():
            down = row.status in {NodeStatus.OFFLINE, NodeStatus.UNHEALTHY}
            if row.status is NodeStatus.DRAINING:
                continue
            if now - row.last_heartbeat <= STALE_AFTER:
                row.status = NodeStatus.HEALTHY if down else row.status
            elif not (down and self.generation == "newer"):
                row.take_offline()

    def put_model(self, node_id: str, model: LoadedModel) -> None:
        """Note that `model` is loaded on the node; a row of that name and replica index is replaced."""
        self.row(node_id).models[model.model_name, model.replica_index or 0] = model

    def add_in_flight(self, node_id: str, model_name: str, change: int, *, replica_index: int = 0) -> None:
        """Count requests being served, never below 0; a row that is gone is not missed."""
        models = self.row(node_id).models
        if model := models.get((model_name, replica_index)):
            in_flight = max(model.in_flight + change, 0)
            models[model_name, replica_index] = replace(model, in_flight=in_flight)

    def _new_row(self, request: RegisterRequest) -> NodeRow:
        now = self.clock.now()
        row = NodeRow(
            id=self.ids(request.name, self._deleted.get(request.name, 0)),
            name=request.name,
            status=NodeStatus.HEALTHY if self.auto_approve else NodeStatus.PENDING,
            created_at=now,
            last_heartbeat=now,
            node_type=request.node_type or "backend",
        )
        self.nodes[row.id] = row
        self._ids[row.name] = row.id
        return row


def _check(request: RegisterRequest) -> None:
    if request.node_type not in {"", "backend", "agent"}:
        wrong_type = f'invalid node_type "{request.node_type}"; must be "backend" or "agent"'
        raise NodeCallRefused(400, wrong_type)
    if not request.name:
        raise NodeCallRefused(400, "name is required")
    if not request.address and request.node_type != "agent":
        raise NodeCallRefused(400, "address is required for backend workers")
    limits = {"name": _NAME_BYTES, "address": _ADDRESS_BYTES, "http_address": _ADDRESS_BYTES}
    for field_name, limit in limits.items():
        if len(getattr(request, field_name).encode()) > limit:
            raise NodeCallRefused(400, f"{field_name} exceeds {limit} characters")


def _rfc3339(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
