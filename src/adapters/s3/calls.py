"""Calls that block on the network in threads, and how one that nobody waits for any more is ended.

A silent store would hold its thread for the read timeout times the attempts, and the end of the worker with
it. So each connection tells which call uses it, and ending the call shuts the connection down.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)

R = TypeVar("R")

_thread = threading.local()  # `call`: what runs in it


class CallEnded(OSError):
    """Nobody waits for what a thread is about to ask."""


class Call(Generic[R]):
    """`work` in a thread. `discard` gets a result that nobody takes."""

    def __init__(self, work: Callable[..., R], discard: Callable[[R], object] | None = None) -> None:
        self._work, self._discard = work, discard
        self._lock = threading.Lock()
        self._connection: Any = None
        self._results: list[R] = []
        self._ended = False

    def __call__(self, *arguments: object) -> R:
        _thread.call = self
        try:
            result = self._work(*arguments)
        finally:
            _thread.call = None
            with self._lock:
                self._connection = None
        with self._lock:
            self._results.append(result)
        if self._ended:
            self._discard_results()
        return result

    def end(self) -> None:
        """Have its thread come back soon: wake it, and let it ask nothing more."""
        self._shut_down()
        self._discard_results()

    def _shut_down(self) -> None:
        with self._lock:
            self._ended = True
            connection = getattr(self._connection, "sock", None)
            if isinstance(connection, socket.socket):
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)  # below TLS, which others may be in

    def _discard_results(self) -> None:
        with self._lock:
            results, self._results = self._results, []
        for result in results:
            if self._discard is not None:
                self._discard(result)

    def use(self, connection: object) -> None:
        """It is about to wait on `connection`.

        Raises:
            CallEnded: it is not to.
        """
        with self._lock:
            if self._ended:
                raise CallEnded("nobody waits for the answer")
            self._connection = connection


async def run(
    work: Callable[[], R], limiter: CapacityLimiter | None, discard: Callable[[R], object] | None = None
) -> R:
    """What `work` returns. Cancelled, it is ended and not waited for; `discard` gets what it brings yet."""
    call = Call(work, discard)
    try:
        return await to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=True)
    except anyio.get_cancelled_exc_class():
        call.end()
        raise


class _Watched:
    """A connection that tells the call of its thread that it is used."""

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        _use(self)

    def request(self, *arguments: Any, **options: Any) -> Any:
        _use(self)
        return super().request(*arguments, **options)  # type: ignore[misc]


class _Http(_Watched, AWSHTTPConnection):  # type: ignore[misc]
    pass


class _Https(_Watched, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _HttpPool(AWSHTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(AWSHTTPSConnectionPool):
    ConnectionCls = _Https


def watch(client: Any) -> None:
    """Have the calls of boto3's `client` know their connections."""
    session = client._endpoint.http_session  # noqa: SLF001
    session._pool_classes_by_scheme.update(http=_HttpPool, https=_HttpsPool)  # noqa: SLF001
    # Raised from a handler, an error is not one the client tries again after.
    client.meta.events.register("before-send.s3", _require_wanted)


def _require_wanted(**_: object) -> None:
    _use(None)


def _use(connection: object) -> None:
    call: Call[Any] | None = getattr(_thread, "call", None)
    if call is not None:
        call.use(connection)
