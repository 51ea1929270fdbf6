"""The frontend as nodes call it, in memory: its registry behind token checks, and faults to set.

Sources: LocalAI core/http/routes/nodes.go, core/http/endpoints/localai/nodes.go.
"""

import hmac
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

import anyio
from anyio.lowlevel import checkpoint

from ...domain.errors import FrontendUnavailable, MalformedMessage
from ...domain.messages.node_status import LoadedModel
from ...domain.messages.registration import Heartbeat, RegisterReply, RegisterRequest
from ...domain.node import NodeId
from .frontend_nodes import NodeStatus
from .frontend_registry import NodeCallRefused, NodeRegistry

_KEPT_CALLS = 10_000
_SCHEME = "Bearer "


@dataclass(frozen=True, slots=True)
class FrontendCall:
    """One call a node made: the endpoint's name, the body as it came, the status answered (0: none)."""

    came_at: datetime
    endpoint: str
    node_id: str
    body: bytes = field(repr=False)  # a registration carries the token
    status: int


@dataclass(kw_only=True)
class InMemoryFrontend(NodeRegistry):
    """The node endpoints; `authorization` is the header's value, `""` without one.

    Every endpoint raises NodeCallRefused with the status and the text the frontend answers, and
    FrontendUnavailable while `offline`. `api_auth` plays a frontend with user authentication: a seed one
    then refuses the registration token on `models`, `resume` and `delete`. Faults: `offline`, `slow_s`,
    `answer_next`. `calls` are the latest calls, in the order they ended.
    """

    token: str = ""
    api_auth: bool = False
    offline: bool = False
    slow_s: float = 0.0
    calls: deque[FrontendCall] = field(default_factory=lambda: deque(maxlen=_KEPT_CALLS))
    _overrides: deque[int] = field(default_factory=deque)

    def answer_next(self, status: int, *, times: int = 1) -> None:
        """Answer the next `times` calls with `status` and without effect, as a broken frontend or a proxy."""
        self._overrides.extend([status] * times)

    async def register(self, body: bytes, authorization: str) -> RegisterReply:
        """Make the node of this name known, or known again under the same id."""
        async with self._answering("register", "", body, authorization, status=201):
            try:
                request = RegisterRequest.from_wire(body)
            except MalformedMessage as error:
                raise NodeCallRefused(400, "invalid request body") from error
            self._check_body_token(request)
            return self.take_in(request)

    async def heartbeat(self, node_id: str, body: bytes, authorization: str) -> None:
        """Note that the node lives; a body that cannot be read only moves the time."""
        # As `_answering`, without its machinery: a fleet makes a hundred of these calls for any other.
        came_at, answered = self.clock.now(), 0
        try:
            await self._play_faults()
            self._check_token("heartbeat", authorization)
            now = self.clock.now() if self.slow_s else came_at
            self.row(node_id).take_heartbeat(_read(body), self.generation, now)
            answered = 200
        except NodeCallRefused as refused:
            answered = refused.status
            raise
        finally:
            self.calls.append(FrontendCall(came_at, "heartbeat", node_id, body, answered))

    async def drain(self, node_id: str, authorization: str) -> None:
        """Give the node no new work; a newer frontend also forgets what is loaded there."""
        async with self._answering("drain", node_id, b"", authorization):
            row = self.row(node_id, status=500, failure="failed to drain node")
            row.status = NodeStatus.DRAINING
            if self.generation == "newer":
                row.models.clear()

    async def models(self, node_id: str, authorization: str) -> tuple[LoadedModel, ...]:
        """The node's rows; none for an unknown node."""
        async with self._answering("models", node_id, b"", authorization):
            row = self.nodes.get(NodeId(node_id))
            return tuple(row.models.values()) if row else ()

    async def deregister(self, node_id: str, authorization: str) -> None:
        """Mark the node offline; the row stays."""
        async with self._answering("deregister", node_id, b"", authorization):
            self.row(node_id, status=500, failure="failed to deactivate node").take_offline()

    async def delete(self, node_id: str, authorization: str) -> None:
        """`deregister` by another name: the DELETE method."""
        async with self._answering("delete", node_id, b"", authorization):
            self.row(node_id, status=500, failure="failed to deactivate node").take_offline()

    async def resume(self, node_id: str, authorization: str) -> None:
        """End a drain."""
        async with self._answering("resume", node_id, b"", authorization):
            row = self.row(node_id, status=500, failure="failed to resume node")
            row.status = NodeStatus.HEALTHY

    @asynccontextmanager
    async def _answering(
        self, endpoint: str, node_id: str, body: bytes, authorization: str, *, status: int = 200
    ) -> AsyncIterator[None]:
        """Play the faults, check the token, and note the call with the status it was answered."""
        came_at, answered = self.clock.now(), 0
        try:
            await self._play_faults()
            self._check_token(endpoint, authorization)
            yield
            answered = status
        except NodeCallRefused as refused:
            answered = refused.status
            raise
        finally:
            self.calls.append(FrontendCall(came_at, endpoint, node_id, body, answered))

    async def _play_faults(self) -> None:
        await checkpoint()
        if self.slow_s:
            await anyio.sleep(self.slow_s)
        if self.offline:
            raise FrontendUnavailable("memory", "the in-memory frontend is set offline")
        if self._overrides:
            raise NodeCallRefused(self._overrides.popleft(), "set by answer_next")

    def _check_token(self, endpoint: str, authorization: str) -> None:
        if self.api_auth and self.generation == "seed" and endpoint in {"models", "resume", "delete"}:
            raise NodeCallRefused(401, "authentication required")
        if not self.token:
            return
        if not authorization.startswith(_SCHEME):
            raise NodeCallRefused(401, "missing or invalid Authorization header", by_token_check=True)
        if not _same(authorization.removeprefix(_SCHEME), self.token):
            raise NodeCallRefused(401, "invalid registration token", by_token_check=True)

    def _check_body_token(self, request: RegisterRequest) -> None:
        if self.token and not request.token:
            raise NodeCallRefused(401, "registration token required")
        if self.token and not _same(request.token, self.token):
            raise NodeCallRefused(401, "invalid registration token")


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode())


@lru_cache(maxsize=4096)
def _read(heartbeat: bytes) -> Heartbeat:
    """The body; of a node at rest it is the same for hours."""
    return Heartbeat.from_wire(heartbeat)
