"""One HTTP connection: uvicorn's, with bounds on the head of a request, and its socket to lend."""

import asyncio
from http import HTTPStatus
from typing import Any

import anyio
import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .socket_loan import EXTENSION, SocketSource, send_file

HEAD_LIMIT_BYTES = 64 * 1024  # request line and headers; the longest legal key takes 12 KiB, encoded
HEAD_LIMIT_S = 30.0  # as upstream's ReadHeaderTimeout


class Connection(HttpToolsProtocol):
    """Refuses heads that are too large (431) or too slow (408), and lends its socket to each request."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    body_bytes = 0
    """How much of the newest request's body the parser has seen."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_over()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.body_bytes = 0
        if self._head_timer is None:
            self._expect_head()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_over()
        super().on_headers_complete()
        if self.cycle is not None:
            extensions: dict[str, Any] = {EXTENSION: Loan(self, self.cycle)}
            self.cycle.scope["extensions"] = extensions

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        if self._head_bytes > HEAD_LIMIT_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            super().send_400_response(msg)

    def _count(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > HEAD_LIMIT_BYTES:
            raise ValueError("too large")  # ends the parser, which then asks for a 400

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_LIMIT_S, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def _head_over(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: HTTPStatus) -> None:
        self._head_over()
        if not self.transport.is_closing():
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.write(head.encode())
            self.transport.close()


class Loan:
    """The `SocketLoan` of one request."""

    def __init__(self, connection: Connection, cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle

    def lend_body(self, length_bytes: int) -> tuple[bytes, SocketSource] | None:
        connection, cycle = self._connection, self._cycle
        if connection.cycle is not cycle or cycle.disconnected or connection.transport.is_closing():
            return None
        connection.flow.pause_reading()
        buffered, cycle.body = bytes(cycle.body), bytearray()
        return buffered, SocketSource(self._socket(), length_bytes - connection.body_bytes)

    def body_taken(self) -> None:
        self._connection.parser = httptools.HttpRequestParser(self._connection)
        self._cycle.more_body = False

    async def send_file(self, file: int, start: int, count: int, *, idle_s: float) -> None:
        with anyio.fail_after(idle_s):
            while self._cycle.transport.get_write_buffer_size():  # hardly ever: a head fits an idle socket
                await anyio.sleep(0.001)
        await send_file(self._socket(), file, start, count, idle_s=idle_s)
        self._cycle.expected_content_length = 0

    def cut(self, *, at_once: bool) -> None:
        self._cycle.disconnected = True  # nothing more is to be sent for this request
        if at_once:
            self._cycle.transport.abort()
        else:
            self._cycle.transport.close()

    def _socket(self) -> int:
        descriptor: int = self._cycle.transport.get_extra_info("socket").fileno()
        return descriptor
