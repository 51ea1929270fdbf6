"""uvicorn as a part of our process: no signals, no logging set-up, stopped by cancelling like all else."""

import asyncio
import socket
from importlib.util import find_spec
from typing import Any, cast

import anyio
import uvicorn
from anyio import CancelScope

CLEAN_UP_S = 0.9  # for a cancelled request to remove its temporary file
# Of live views, as upstream has them: a ping every 30 s, given up 60 s after one that is not answered.
PING_S, PONG_S = 30.0, 60.0
WS_FRAME_LIMIT_BYTES = 4096


class EmbeddedServer:
    """One uvicorn server on a socket that somebody else bound; `start`, `run`, `stop`, in this order."""

    def __init__(self, app: Any, *, keep_alive_s: int, grace_s: float) -> None:
        config = uvicorn.Config(
            app,
            http=_connection() if find_spec("httptools") else "h11",
            ws=cast("type[asyncio.Protocol]", _web_socket),  # called like the class
            ws_ping_interval=PING_S,
            ws_ping_timeout=PONG_S,
            ws_max_size=WS_FRAME_LIMIT_BYTES,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=keep_alive_s,
            timeout_graceful_shutdown=round(grace_s),
        )
        config.load()
        self._server = uvicorn.Server(config)
        # `Server.serve` would do this and the three steps below, but also take the process's signals
        # over, and leave everything open when it is cancelled.
        self._server.lifespan = config.lifespan_class(config)

    async def start(self, listening: socket.socket) -> None:
        """Accept connections."""
        with CancelScope(shield=True):  # half started, it could not be stopped
            await self._server.startup(sockets=[listening])

    async def run(self) -> None:
        """Serve until cancelled; a second is how often the Date header wants refreshing."""
        while not await self._server.on_tick(0):
            await anyio.sleep(1)

    async def stop(self) -> None:
        """Stop accepting, wait for running requests within the grace period, cancel the others."""
        if not self._server.started:
            return
        await self._server.shutdown()
        with anyio.move_on_after(CLEAN_UP_S):
            while self._server.server_state.tasks:
                await anyio.sleep(0.01)


def _connection() -> Any:
    """Our connection class; needs the fast parser."""
    from .connection import Connection

    return Connection


def _web_socket(**parts: Any) -> Any:
    """The protocol that a connection is upgraded to; its library is loaded by the first one."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(**parts)
