"""ASGI applications behind real sockets, for as long as a test needs them."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from localai_worker.adapters.http_server.embedded import EmbeddedServer
from localai_worker.adapters.http_server.serve import Application


@asynccontextmanager
async def serving(app: Application) -> AsyncIterator[str]:
    """Serve `app` on a free port of this machine; yields its `host:port`.

    Requests still running at the end are cancelled at once.
    """
    # Only a socket that names its protocol gets TCP_NODELAY from asyncio; without it an answer takes 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = EmbeddedServer(app, keep_alive_s=5, grace_s=0)
        await server.start(listener)
        try:
            yield "{}:{}".format(*listener.getsockname())
        finally:
            await server.stop()
