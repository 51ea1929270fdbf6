"""`FrontendClient` on an in-memory frontend."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import anyio
from anyio.lowlevel import checkpoint

from ...domain.errors import FrontendRefused, FrontendUnavailable, NodeForgotten
from ...domain.messages.node_status import LoadedModel
from ...domain.messages.registration import Heartbeat, RegisterReply, RegisterRequest
from ...domain.node import NodeId
from .frontend import InMemoryFrontend
from .frontend_registry import NodeCallRefused

_URL = "memory"
_OK = 200
_SUCCESSES = range(200, 300)
_REDIRECTS = range(300, 400)
_REFUSALS = range(400, 500)


@dataclass(frozen=True)
class InMemoryFrontendClient:
    """Calls the frontend as a worker with `token` does; what it sends has gone through its wire form."""

    frontend: InMemoryFrontend
    token: str = field(default="", repr=False)
    timeout_s: float = 10.0

    async def register(self, request: RegisterRequest) -> RegisterReply:
        async with self._call():
            return await self.frontend.register(request.to_wire(), self._authorization)

    async def heartbeat(self, node_id: NodeId, beat: Heartbeat) -> None:
        try:
            if self.frontend.slow_s:
                async with self._call(wants=_SUCCESSES):
                    await self.frontend.heartbeat(node_id, _written(beat), self._authorization)
            else:  # it answers at once, and a fleet makes a hundred of these calls for any other
                await self._heartbeat(node_id, beat)
        except FrontendRefused as error:
            if error.status == 404:
                raise NodeForgotten(node_id) from error
            raise

    async def drain(self, node_id: NodeId) -> None:
        async with self._call(wants=range(_OK, _OK + 1)):
            await self.frontend.drain(node_id, self._authorization)

    async def loaded_models(self, node_id: NodeId) -> tuple[LoadedModel, ...]:
        async with self._call():
            return await self.frontend.models(node_id, self._authorization)

    async def deregister(self, node_id: NodeId) -> None:
        async with self._call(wants=range(_OK, _OK + 1)):
            await self.frontend.deregister(node_id, self._authorization)

    async def close(self) -> None:
        """Nothing is held."""
        await checkpoint()

    @property
    def _authorization(self) -> str:
        return f"Bearer {self.token}" if self.token else ""

    async def _heartbeat(self, node_id: NodeId, beat: Heartbeat) -> None:
        try:
            await self.frontend.heartbeat(node_id, _written(beat), self._authorization)
        except NodeCallRefused as refused:
            if refused.status not in _SUCCESSES:
                raise _translated(refused) from refused

    @asynccontextmanager
    async def _call(self, *, wants: range = range(0)) -> AsyncIterator[None]:
        """Bound the call and translate its failure; statuses in `wants` need no body to be a success."""
        try:
            with anyio.fail_after(self.timeout_s):
                yield
        except TimeoutError as error:
            raise FrontendUnavailable(_URL, f"no answer within {self.timeout_s:g} s") from error
        except NodeCallRefused as refused:
            if refused.status in wants:
                return
            raise _translated(refused) from refused


def _translated(refused: NodeCallRefused) -> FrontendRefused | FrontendUnavailable:
    """What a worker makes of an answer that is not the one asked for."""
    if refused.status in _REFUSALS:
        return FrontendRefused(_URL, refused.status, refused.message)
    if refused.status in _REDIRECTS:
        reason = f"it answers {refused.status}, a redirect, which is never followed"
        return FrontendUnavailable(_URL, reason)
    return FrontendUnavailable(_URL, f"it answers {refused}")


@lru_cache(maxsize=4096)
def _written(beat: Heartbeat) -> bytes:
    """The wire form; of a node at rest it is the same for hours."""
    return beat.to_wire()
