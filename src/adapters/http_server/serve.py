"""The HTTP server of a node: the port is bound first, served later, and let go of whatever happens."""

import errno
import importlib
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio import CancelScope, to_thread
from anyio.abc import TaskStatus

from ...domain.errors import WorkerError

GRACE_S = 4.0  # with the clean-up after it within the 5 s the upstream worker gives requests at shutdown
KEEP_ALIVE_S = 90  # as long as the frontend keeps an idle connection for its next request
BACKLOG = 1024

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


@dataclass(eq=False)
class CannotListen(WorkerError):
    """The HTTP port cannot be had."""

    host: str
    port: int
    reason: str

    def __str__(self) -> str:
        at = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        remedy = "stop what holds the port or set LOCALAI_HTTP_ADDR to a free one"
        return f"cannot listen for HTTP on {at}: {self.reason}; {remedy}"


@dataclass
class HttpServer:
    """Serves one ASGI application on one port.

    `host`: empty for every address of both families, `0.0.0.0` for IPv4 alone, or one address or name;
    `port`: 0 lets the system choose.
    """

    app: Application
    host: str
    port: int
    _socket: socket.socket | None = field(default=None, init=False)

    def bind(self) -> int:
        """Take the port and return its number; connections wait from now on, until `serve` answers them.

        Doing so again changes nothing.

        Raises:
            CannotListen: the port is taken, or the address is not this machine's.
        """
        if self._socket is None:
            self._socket = _listen(self.host, self.port)
        port: int = self._socket.getsockname()[1]
        return port

    async def serve(self, *, task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED) -> None:
        """Answer requests until cancelled; reports the port once it does.

        Cancelled, it stops accepting, closes idle connections, gives running requests `GRACE_S` seconds
        and cancels the rest; the port is free when this returns.

        Raises:
            CannotListen: `bind` was not called before, and fails now.
        """
        port = self.bind()
        assert self._socket is not None
        # Loads uvicorn: in a thread, as it takes a tenth of a second.
        embedded = await to_thread.run_sync(importlib.import_module, f"{__package__}.embedded")
        server = embedded.EmbeddedServer(self.app, keep_alive_s=KEEP_ALIVE_S, grace_s=GRACE_S)
        try:
            await server.start(self._socket)
            task_status.started(port)
            await server.run()
        finally:
            with CancelScope(shield=True):
                await server.stop()
            self.close()

    def close(self) -> None:
        """Let go of a port that was bound and is not served; idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:  # getaddrinfo would quietly take another one
        raise CannotListen(host, port, "there is no such port")
    try:
        if host == "":
            return _listen_everywhere(port)
        address = host.strip("[]")
        flags = socket.AI_PASSIVE
        family, _, _, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=flags)[0]
        return _listening(family, target)
    except OSError as error:
        raise CannotListen(host, port, error.strerror or str(error)) from error
    except ValueError as error:  # a name that cannot be asked for
        raise CannotListen(host, port, "there is no such host") from error


def _listen_everywhere(port: int) -> socket.socket:
    try:
        return _listening(socket.AF_INET6, ("::", port), both_families=True)
    except OSError as error:
        if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            raise
    return _listening(socket.AF_INET, ("0.0.0.0", port))  # a machine without IPv6


def _listening(family: int, target: Any, *, both_families: bool = False) -> socket.socket:
    # With the protocol spelt out asyncio switches Nagle's algorithm off; else every answer waits some 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both_families))
        listening.bind(target)
        # Only a listening socket keeps others off the port: a second one may bind it as well until then.
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening
