"""A connection's socket, lent by the server for bulk bytes: a worker thread moves them, not the event loop.

A body of 100 GB would otherwise be copied four times on its way through the event loop, in pieces of 64 to
256 KiB, and hold up everything else. Lent, it goes from the socket into one buffer, to the hash and to the
disk in one thread; a file goes out by sendfile, without coming up at all. Small bodies are not worth it.

A step never waits longer than `PATIENCE_MS` for the other side: who is slow holds no thread.
"""

import os
import select
from collections.abc import Callable
from typing import Any, Protocol

import anyio
from anyio import to_thread

from ...domain.errors import WorkerError

EXTENSION = "localai_worker.socket"
"""The name of the loan among an ASGI scope's extensions."""

PATIENCE_MS = 5  # a client at full speed refills its socket in much less
STEP_BYTES = 32 * 1024 * 1024  # some 30 ms: how long a cancellation may wait


class ConnectionEnded(WorkerError):
    """The other side closed or reset the connection in the middle of something."""

    def __str__(self) -> str:
        return "the connection ended"


class SocketLoan(Protocol):
    """What a server offers beside `receive` and `send`, for one request."""

    def lend_body(self, length_bytes: int) -> tuple[bytes, "SocketSource"] | None:
        """Stop reading for the request, whose body has `length_bytes`.

        Returns what was read of it and not received yet, and the socket for the rest; None where that
        cannot be. What the caller leaves unread spoils the connection: it must be closed, unless
        `body_taken` is called.
        """

    def body_taken(self) -> None:
        """The whole body was read from the socket; the next request may follow."""

    async def send_file(self, file: int, start: int, count: int, *, idle_s: float) -> None:
        """Send bytes of the open `file` as the body, after the response has started.

        Raises:
            TimeoutError: the client took nothing for `idle_s` seconds.
            ConnectionEnded: it went away.
            OSError: the file cannot be read; EOFError: it is shorter.
        """

    def cut(self, *, at_once: bool) -> None:
        """End the connection in the middle of this request; not `at_once`: after what waits to be sent."""


class SocketSource:
    """A `ByteSource` over the next `left_bytes` of a socket that is not read by anybody else."""

    def __init__(self, descriptor: int, left_bytes: int) -> None:
        self._descriptor = os.dup(descriptor)  # ours to close, and never another connection's number
        self.left_bytes = left_bytes

    def readinto(self, buffer: memoryview) -> int | None:
        """As `ByteSource.readinto`; never more than what is left.

        Raises:
            ConnectionEnded: before that.
        """
        wanted = buffer[: self.left_bytes]
        if not wanted:
            return 0
        count = _patiently(self._descriptor, select.POLLIN, lambda: os.readv(self._descriptor, [wanted]))
        if count == 0:
            raise ConnectionEnded
        self.left_bytes -= count or 0
        return count

    async def ready(self) -> None:
        """Wait until there is something to read."""
        await anyio.wait_readable(self._descriptor)

    def close(self) -> None:
        """Let go of the socket; idempotent."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


async def send_file(socket: int, file: int, start: int, count: int, *, idle_s: float) -> None:
    """See `SocketLoan.send_file`; `socket` is not written by anybody else."""
    descriptor = os.dup(socket)
    try:
        end = start + count
        while start < end:
            step = min(STEP_BYTES, end - start)
            sent = await to_thread.run_sync(_send_step, descriptor, file, start, step)
            start += sent
            if sent < step:
                with anyio.fail_after(idle_s):
                    await anyio.wait_writable(descriptor)
    finally:
        os.close(descriptor)


def _send_step(socket: int, file: int, start: int, count: int) -> int:
    """Send up to `count` bytes, until the socket is full for a while; how many."""
    done = 0
    while done < count:

        def send(offset: int = start + done, rest: int = count - done) -> int:
            return os.sendfile(socket, file, offset, rest)

        sent = _patiently(socket, select.POLLOUT, send)
        if sent is None:
            break
        if sent == 0:
            raise EOFError
        done += sent
    return done


def _patiently(descriptor: int, event: int, move: Callable[[], int]) -> int | None:
    """What `move` returns, tried again once the socket is ready; None when it is not soon."""
    try:
        return move()
    except BlockingIOError:
        pass
    except OSError as error:
        raise _named(error) from error
    waiting = select.poll()
    waiting.register(descriptor, event)
    if not waiting.poll(PATIENCE_MS):
        return None
    try:
        return move()
    except BlockingIOError:
        return None
    except OSError as error:
        raise _named(error) from error


def _named(error: OSError) -> Exception:
    """The connection's end by its own name; anything else as it is."""
    return ConnectionEnded() if isinstance(error, ConnectionError) else error


def loan_of(scope: Any) -> SocketLoan | None:
    """The loan that the server offers with this request; None for servers that have none."""
    loan: SocketLoan | None = scope.get("extensions", {}).get(EXTENSION)
    return loan
