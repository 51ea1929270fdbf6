"""Verbs on live views of what backends print: WebSockets, as a browser opens them through the frontend."""

import json
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus

from ..failures import SimulationError
from ..live import LiveFrontend
from .verbs import verb

_OPENS_S = 10.0
_KEPT_FRAMES = 1000


@dataclass
class _View:
    frames: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT_FRAMES))
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


@dataclass
class LogVerbs:
    """One view of each model on each node, read in `tasks`; models are spelled as in a URL."""

    live: LiveFrontend
    tasks: TaskGroup
    _views: dict[tuple[str, str], _View] = field(default_factory=dict)

    @verb
    async def follow_log(self, node: str, model: str, token: str | None = None) -> object:
        """Open the live view of a model's output; `log_frames` tells what comes."""
        row = self.live.commands.registry.named(node)
        if row is None:
            raise SimulationError(f"node {node} is not registered")
        view = _View()
        url = f"ws://{row.http_address}/v1/backend-logs/{model}/ws"
        await self.tasks.start(_follow, view, url, self.live.commands.token if token is None else token)
        self._views[node, model] = view
        return {}

    @verb
    async def log_frames(self, node: str, model: str) -> object:
        """What came on a view, oldest first; `{closed: CODE}` at its end."""
        await anyio.lowlevel.checkpoint()
        return list(self._view(node, model).frames)

    @verb
    async def leave_log(self, node: str, model: str) -> object:
        """Close a view."""
        await anyio.lowlevel.checkpoint()
        self._view(node, model).scope.cancel()
        return {}

    def _view(self, node: str, identifier: str) -> _View:
        if (node, identifier) not in self._views:
            raise SimulationError(f"nobody follows {identifier} of {node}")
        return self._views[node, identifier]


async def _follow(view: _View, url: str, token: str, *, task_status: TaskStatus[None]) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, WebSocketException

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection = await connect(url, additional_headers=headers, open_timeout=_OPENS_S, proxy=None)
    except (OSError, TimeoutError, WebSocketException) as error:
        raise SimulationError(f"{url}: {str(error) or type(error).__name__}") from error
    try:
        with view.scope, suppress(ConnectionClosed):
            task_status.started()
            async for frame in connection:
                view.frames.append(json.loads(frame))
    finally:
        with anyio.CancelScope(shield=True):
            await connection.close()
        view.frames.append({"closed": connection.close_code})
