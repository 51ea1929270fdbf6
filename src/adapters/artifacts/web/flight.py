"""The connections of one fetch, which may be cut at any moment."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import anyio
from anyio.lowlevel import checkpoint

Result = TypeVar("Result")


class FetchCut(Exception):
    """The fetch was cancelled; it goes no further than the adapter, the caller sees its own cancellation."""


class Cuttable(Protocol):
    """A response whose reader, in another thread, can be woken."""

    def shutdown(self) -> None:
        """Let a blocked read return at once."""


@dataclass
class Flight:
    """What the threads of one fetch share: whether to go on, and what to cut when not.

    The first failure ends it for all threads.
    """

    failure: Exception | None = None
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: list[Cuttable] = field(default_factory=list)

    def is_over(self) -> bool:
        """Whether everybody should end."""
        return self._over.is_set()

    def check(self) -> None:
        """Raise FetchCut when it is over."""
        if self._over.is_set():
            raise FetchCut

    def pause(self, seconds: float) -> None:
        """Wait, and raise FetchCut as soon as it is over."""
        self._over.wait(seconds)
        self.check()

    def cut(self) -> None:
        """End it: every thread notices within a read or an entry."""
        self._over.set()
        with self._lock:
            for response in self._open:
                with suppress(Exception):  # it is closing by itself, or was never connected
                    response.shutdown()

    def fail(self, failure: Exception) -> None:
        """End it because of `failure`, unless it is over already."""
        with self._lock:
            if self.failure is None and not self._over.is_set():
                self.failure = failure
        self.cut()

    shutdown = cut  # a flight is cut with the one it branched off

    @contextmanager
    def branch(self) -> Iterator["Flight"]:
        """A flight that ends with the block, and with this one; what made it fail is raised."""
        branch = Flight()
        with self.track(branch):
            try:
                yield branch
            except FetchCut:
                if branch.failure is None:
                    raise
                raise branch.failure from None
            finally:
                branch.cut()

    @contextmanager
    def track(self, response: Cuttable) -> Iterator[None]:
        """Have `response` cut when it is over."""
        with self._lock:
            self._open.append(response)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._open.remove(response)


@asynccontextmanager
async def in_flight() -> AsyncIterator[Flight]:
    """A flight that is cut when the block is cancelled; call its threads with `run`."""
    flight = Flight()
    failure: Exception | None = None

    async def cut_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            flight.cut()

    async with anyio.create_task_group() as guard:
        guard.start_soon(cut_when_cancelled)
        try:
            yield flight
        except Exception as error:  # noqa: BLE001 - raised below, not inside the group, which would wrap it
            failure = error
        guard.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def run(work: Callable[[], Result], flight: Flight) -> Result:
    """Call `work` in a thread of its own: bulk transfers must not use up the threads everybody shares.

    Raises:
        Exception: what `work` raises, or the failure that ended the flight.
    """
    try:
        return await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))
    except FetchCut:
        await checkpoint()  # raises where it was cut because we are cancelled
        if flight.failure is None:
            raise
        raise flight.failure from None
