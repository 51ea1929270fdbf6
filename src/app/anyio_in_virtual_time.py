"""What anyio does otherwise while a virtual loop runs: it repeats itself exactly, and asks less.

anyio has no hooks for either, so names of it are replaced for the time being; tests/unit/test_virtual_time.py
notices when they move.
"""

import asyncio
import itertools
import types
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from anyio._backends import _asyncio as anyio_asyncio
from anyio._core import _eventloop as anyio_eventloop

_REPLACED = (
    (anyio_asyncio, "CancelScope"),
    (anyio_asyncio, "current_task"),
    (anyio_asyncio, "sleep"),
    (anyio_asyncio.AsyncIOBackend, "current_time"),
    (anyio_eventloop, "current_async_library"),
)


@contextmanager
def as_it_was_afterwards() -> Iterator[None]:
    """Have anyio be itself again when the block ends, however it ends."""
    before = [(owner, name, vars(owner)[name]) for owner, name in _REPLACED]
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def number_scopes() -> None:
    """Have cancel scopes hash by a number instead of by their address.

    A scope keeps its children in a set; the order in which it cancels them would differ from run to run.
    """
    numbers = itertools.count(1)

    class NumberedScope(anyio_asyncio.CancelScope):
        __slots__ = ("_number",)

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._number = next(numbers)

        def __hash__(self) -> int:
            return self._number

    anyio_asyncio.CancelScope = NumberedScope  # type: ignore[misc]


def settle_on(loop: asyncio.AbstractEventLoop) -> None:
    """Spare anyio the questions which library runs and which loop, and a system call for each: it puts them
    at every sleep, checkpoint and look at the clock.
    """
    anyio_eventloop.current_async_library = lambda: "asyncio"
    vars(anyio_asyncio)["current_task"] = lambda _loop=None: asyncio.current_task(loop)
    vars(anyio_asyncio)["sleep"] = _sleep_in(loop)
    anyio_asyncio.AsyncIOBackend.current_time = staticmethod(loop.time)  # type: ignore[method-assign]


def _sleep_in(loop: asyncio.AbstractEventLoop) -> Callable[[float], Awaitable[None]]:
    """`asyncio.sleep`, of this loop."""

    async def sleep(delay: float) -> None:
        if delay <= 0:
            await _next_step()
            return
        over = loop.create_future()
        timer = loop.call_later(delay, _release, over)
        try:
            await over
        finally:
            timer.cancel()

    return sleep


@types.coroutine
def _next_step() -> Generator[None, None, None]:
    yield


def _release(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
