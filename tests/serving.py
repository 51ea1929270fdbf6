"""ASGI applications behind real sockets, for as long as a test needs them."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Serve `app` on a free port of this machine; yields its `host:port`."""
    # Only a socket that names its protocol gets TCP_NODELAY from asyncio; without it an answer takes 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, timeout_graceful_shutdown=0)
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        # Not serve(): it takes over the test runner's signal handlers.
        await server.startup(sockets=[listener])
        try:
            yield "{}:{}".format(*listener.getsockname())
        finally:
            await server.shutdown(sockets=[listener])
