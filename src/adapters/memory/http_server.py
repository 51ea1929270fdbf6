"""An HTTP server without a socket: the application is reached through an in-process transport."""

from dataclasses import dataclass
from typing import Any

import anyio
from anyio.abc import TaskStatus

_PORT = 80  # what nobody connects to


@dataclass
class InMemoryHttpServer:
    """Holds `app`, an ASGI application, for as long as a real server would serve it.

    Clients call it through `httpx.ASGITransport(server.app)`.
    """

    app: Any
    bound: bool = False  # the port is taken: clients may come, and wait
    serving: bool = False

    def bind(self) -> int:
        self.bound = True
        return _PORT

    async def serve(self, *, task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED) -> None:
        self.serving = True
        task_status.started(_PORT)
        try:
            await anyio.sleep_forever()
        finally:
            self.serving = self.bound = False
