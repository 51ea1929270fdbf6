"""A connection's socket, lent by the server for bulk bytes: a worker thread moves them, not the event loop.

A body of 100 GB would otherwise be copied four times on its way through the event loop, in pieces of 64 to
256 KiB, and hold up everything else. Lent, it goes from the socket into one buffer, to the hash and to the
disk in one thread; a file goes out by sendfile, without coming up at all. Small bodies are not worth it.

A step never waits longer than `PATIENCE_MS` for the other side: who is slow holds no thread.
"""

import os
import select
import socket
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

import anyio
from anyio import to_thread

from ...domain.errors import WorkerError
from ..loop_threads import LoopThreads

EXTENSION = "localai_worker.socket"
"""The name of the loan among an ASGI scope's extensions."""

PATIENCE_MS = 50  # a client at full speed needs 1; on a machine under load it needs its turn first
WAKE_BYTES = 512 * 1024
STEP_S = 0.25  # how long a thread goes on, and a cancellation may wait
STEP_BYTES = 1 << 30  # more than a step moves
# A step is short, so that more transfers than that take turns; who is slow keeps nobody from the disk.
_threads = LoopThreads("sending files", 64)


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
    """A `ByteSource` over the next `left_bytes` of a socket that is not read by anybody else.

    While it is read at full speed the system wakes us for `WAKE_BYTES` at a time, not for every packet.
    """

    def __init__(self, descriptor: int, left_bytes: int) -> None:
        # A duplicate: ours to close, and its number never another connection's.
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._polled = select.poll()
        self._polled.register(self._socket, select.POLLIN)
        self._low_water = 1
        self._until_s = 0.0
        self.left_bytes = left_bytes

    def begin_step(self) -> None:
        """From now on what comes is given for `STEP_S`; then there is a pause."""
        self._until_s = monotonic() + STEP_S

    def readinto(self, buffer: memoryview) -> int | None:
        """As `ByteSource.readinto`; never more than what is left.

        Raises:
            ConnectionEnded: before that.
        """
        wanted = buffer[: self.left_bytes]
        if not wanted:
            return 0
        if monotonic() > self._until_s:
            return None
        try:
            self._wake_at(min(len(wanted), WAKE_BYTES))
            self._polled.poll(PATIENCE_MS)
            count = self._socket.recv_into(wanted)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _named(error) from error
        if count == 0:
            raise ConnectionEnded
        self.left_bytes -= count
        return count

    async def ready(self) -> None:
        """Wait until there is something to read."""
        self._wake_at(1)
        await anyio.wait_readable(self._socket)

    def close(self) -> None:
        """Let go of the socket; idempotent."""
        if self._socket.fileno() >= 0:
            self._wake_at(1)  # it is one socket with the server's
            self._socket.close()

    def _wake_at(self, size_bytes: int) -> None:
        if self._low_water != size_bytes:
            self._low_water = size_bytes
            with suppress(OSError):  # not every kind of socket knows it
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)


async def send_file(connection: int, file: int, start: int, count: int, *, idle_s: float) -> None:
    """See `SocketLoan.send_file`; `connection` is not written by anybody else."""
    descriptor, limiter = os.dup(connection), _threads.limiter()
    try:
        end = start + count
        while start < end:
            step = min(STEP_BYTES, end - start)
            sent = await to_thread.run_sync(_send_step, descriptor, file, start, step, limiter=limiter)
            start += sent
            if not sent:
                with anyio.fail_after(idle_s):
                    await anyio.wait_writable(descriptor)
    finally:
        os.close(descriptor)


def _send_step(connection: int, file: int, start: int, count: int) -> int:
    """Send up to `count` bytes, until the socket is full for a while; how many."""
    writable = select.poll()
    writable.register(connection, select.POLLOUT)
    done, until_s = 0, monotonic() + STEP_S
    while done < count and monotonic() < until_s:
        try:
            sent = os.sendfile(connection, file, start + done, count - done)
        except BlockingIOError:
            if not writable.poll(PATIENCE_MS):
                break
        except OSError as error:
            raise _named(error) from error
        else:
            if sent == 0:
                raise EOFError
            done += sent
    return done


def _named(error: OSError) -> Exception:
    """The connection's end by its own name; anything else as it is."""
    return ConnectionEnded() if isinstance(error, ConnectionError) else error


def loan_of(scope: Any) -> SocketLoan | None:
    """The loan that the server offers with this request; None for servers that have none."""
    loan: SocketLoan | None = scope.get("extensions", {}).get(EXTENSION)
    return loan
