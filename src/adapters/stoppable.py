"""Long work in a thread that ends soon when nobody wants it any more."""

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import to_thread

from ..domain.first_error import first_error

R = TypeVar("R")


async def in_stoppable_thread(work: Callable[[threading.Event], R]) -> R:
    """What `work` returns; its event is set when the caller is cancelled, and it is to look now and then."""
    stopped = threading.Event()
    results: list[R] = []

    async def stop_at_the_end() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop_at_the_end)
            results.append(await to_thread.run_sync(work, stopped))
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise first_error(group) from group
    return results[0]
