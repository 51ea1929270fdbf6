"""One request as the routes see it: the path as it was sent, and a body that can be read or drained."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from anyio import fail_after, move_on_after, to_thread
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from ...domain.errors import WorkerError
from ...domain.upload import Upload
from .socket_loan import STEP_BYTES, ConnectionEnded, SocketLoan, SocketSource, loan_of

# No client of ours pauses that long: newer frontends give a load up after 5 minutes without progress.
BODY_IDLE_S = 600.0
# What a client may go on sending after we refused it; a client that has read our answer stops by itself.
DRAIN_LIMIT_BYTES = 256 * 1024 * 1024
DRAIN_LIMIT_S = 10.0
LOAN_WORTH_BYTES = 256 * 1024  # of a smaller rest most has come up already

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@dataclass(eq=False)
class MalformedRequest(WorkerError):
    """A request line or header that cannot be read."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class ClientGone(WorkerError):
    """The connection ended in the middle of a body; there is nobody to answer."""

    received_bytes: int

    def __str__(self) -> str:
        return f"the client went away after {self.received_bytes} bytes"


@dataclass(eq=False)
class ClientStalled(WorkerError):
    """The connection is open, but the body does not go on."""

    idle_s: float

    def __str__(self) -> str:
        return f"no data for {self.idle_s:g} s; send the file again"


class RequestBody:
    """The body of a request; `ended` once nothing of it is still to come."""

    def __init__(self, headers: Headers, receive: Receive, loan: SocketLoan | None = None) -> None:
        self._receive = receive
        self._received_bytes = 0
        length = headers.get("content-length")
        self.ended = length in {None, "0"} and "transfer-encoding" not in headers
        # Such a client sends nothing before we start to read: after a refusal there is nothing to drain.
        self.awaits_us = headers.get("expect", "").lower() == "100-continue"
        self._length = int(length) if length and length.isascii() and length.isdigit() else None
        self._loan = loan
        self._source: SocketSource | None = None
        self._gone = False
        self._buffered = b""  # read by the server before it lent its socket

    async def chunks(self) -> AsyncIterator[bytes]:
        """What comes, as it comes.

        Raises:
            ClientGone, ClientStalled: the body will not be complete.
        """
        while not self.ended:
            with _within(BODY_IDLE_S):
                message = await self._receive()
            yield self._take(message)

    async def pour_into(self, upload: Upload) -> None:
        """Write what comes to `upload`, up to the end of what it wants; by the socket itself if it is much.

        Raises:
            ClientGone, ClientStalled: the body will not be complete.
            WorkerError: as `upload` says.
        """
        async for chunk in self.chunks():
            if chunk and upload.wanted_bytes == 0:
                return  # what follows a range is none of it
            await upload.write(chunk)
            if self._borrow_socket():
                break
        while self._source and not self.ended and upload.wanted_bytes != 0:
            await self._pour_step(self._source, upload)

    async def drain(self) -> None:
        """Read and drop the rest, within bounds.

        Closing a connection with unread data resets it, and the client may lose our answer with it: it
        would see a broken connection, which frontends retry, instead of a status, which they believe.
        """
        with move_on_after(DRAIN_LIMIT_S):
            until_bytes = self._received_bytes + DRAIN_LIMIT_BYTES
            try:
                while not self.ended and self._received_bytes < until_bytes:
                    if self._source:
                        await self._drain_step(self._source)
                    else:
                        self._take(await self._receive())
            except ClientGone:
                return  # it has read enough

    def close(self) -> None:
        """Give the socket back; idempotent."""
        if self._source is None:
            return
        self._source.close()
        if self._gone and self._loan:
            self._loan.cut(at_once=True)  # the server, which has not been reading, would not know

    def _take(self, message: Message) -> bytes:
        if message["type"] == "http.disconnect":
            self.ended = True
            raise ClientGone(self._received_bytes)
        chunk: bytes = message.get("body", b"")
        self._received_bytes += len(chunk)
        self.ended = not message.get("more_body", False)
        self.awaits_us = False
        return chunk

    def _borrow_socket(self) -> bool:
        """Take the socket over if that is worth it; what came up already is the next chunk."""
        if self.ended or self._loan is None or self._length is None:
            return False
        if self._length - self._received_bytes < LOAN_WORTH_BYTES:
            return False
        lent = self._loan.lend_body(self._length)
        if lent is None:
            return False
        self._source = lent[1]
        self._buffered = lent[0]
        return True

    async def _pour_step(self, source: SocketSource, upload: Upload) -> None:
        if self._buffered:
            chunk, self._buffered = self._buffered, b""
            self._received_bytes += len(chunk)
            await upload.write(chunk)
        source.begin_step()
        try:
            count = await upload.fill(source, most_bytes=STEP_BYTES)
        except ConnectionEnded as error:
            self.ended = self._gone = True
            raise ClientGone(self._received_bytes) from error
        await self._after_step(source, count)

    async def _drain_step(self, source: SocketSource) -> None:
        buffer = memoryview(bytearray(1024 * 1024))
        source.begin_step()
        try:
            count = await to_thread.run_sync(source.readinto, buffer)
        except ConnectionEnded as error:
            self.ended = self._gone = True
            raise ClientGone(self._received_bytes) from error
        await self._after_step(source, count or 0)

    async def _after_step(self, source: SocketSource, count: int) -> None:
        self._received_bytes += count
        if source.left_bytes == 0:
            self.ended = True
            source.close()
            assert self._loan is not None
            self._loan.body_taken()
        elif not count:
            with _within(BODY_IDLE_S):
                await source.ready()


@contextmanager
def _within(idle_s: float) -> Iterator[None]:
    try:
        with fail_after(idle_s):
            yield
    except TimeoutError as error:
        raise ClientStalled(idle_s) from error


def decode_once(raw: bytes) -> str:
    """`raw`, percent-decoded exactly once; bytes that are not UTF-8 become lone surrogates.

    Raises:
        MalformedRequest: a `%` without two hex digits after it.
    """
    if _BAD_ESCAPE.search(raw):
        shown = raw[:100].decode("latin-1")
        raise MalformedRequest(f"invalid URL escape in {shown!a}")
    return unquote_to_bytes(raw).decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class FileRequest:
    """A request for `raw_key`: what follows the route's prefix, percent-encoded as it was sent."""

    method: str
    raw_key: bytes
    headers: Headers
    body: RequestBody

    @classmethod
    def of(cls, scope: Scope, receive: Receive, raw_key: bytes) -> "FileRequest":
        headers = Headers(scope=scope)
        return cls(scope["method"], raw_key, headers, RequestBody(headers, receive, loan_of(scope)))

    @property
    def key(self) -> str:
        """The key, percent-decoded exactly once; bytes that are not UTF-8 become lone surrogates.

        Raises:
            MalformedRequest: a `%` without two hex digits after it.
        """
        return decode_once(self.raw_key)

    @property
    def content_length(self) -> int | None:
        """The declared size of the body in bytes; None when it is chunked.

        Raises:
            MalformedRequest: it is no number.
        """
        header = self.headers.get("content-length")
        if header is None:
            return None
        if not (header.isascii() and header.isdigit()):
            raise MalformedRequest(f"invalid Content-Length {header[:100]!a}")
        return int(header)
