"""An event loop whose clock jumps to the next timer instead of waiting, and in which order does not change.

A value for anyio's `anyio_backend` fixture:

    @pytest.fixture
    def anyio_backend() -> AnyioBackend:
        return VIRTUAL_TIME

`run_in_virtual_time` is for programs, and goes one step further: it repeats. Worker threads and real sockets
have no place in this loop: it would jump past them.
"""

import asyncio
import inspect
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import Any, TypeVar, cast
from weakref import WeakSet

import anyio
from anyio._backends import _asyncio as anyio_asyncio

AnyioBackend = tuple[str, dict[str, Any]]
Result = TypeVar("Result")


class _CountedTask(asyncio.Task[Any]):
    """A task whose hash is its number: anyio and asyncio keep tasks in sets and walk through them."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class TaskFamily:
    """A task and all that it starts, directly or not: what has to go when a simulated process is killed."""

    def __init__(self, main: Coroutine[Any, Any, None]) -> None:
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        context = copy_context()
        context.run(_family.set, self)
        self.main = asyncio.get_running_loop().create_task(main, context=context)

    async def end(self) -> None:
        """Cancel them until none is left: natively, for anyio's shields do not stop a kill."""
        while left := [task for task in self.tasks if not task.done()]:
            for task in left:
                if (
                    inspect.getcoroutinestate(cast("Coroutine[Any, Any, Any]", task.get_coro()))
                    != inspect.CORO_CREATED
                ):
                    task.cancel()  # one that has not begun does so first, or its inner coroutine never would
            await asyncio.sleep(0)


_family: ContextVar[TaskFamily | None] = ContextVar("family", default=None)


class _Timer(asyncio.TimerHandle):
    """A timer that its loop does not count when it is cancelled: it is passed over when its time comes."""

    def cancel(self) -> None:
        asyncio.Handle.cancel(self)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and moves only when every task waits for it.

    Timers of one time run in the order in which they were set. One step of the loop is as asyncio's own, less
    what a loop needs that waits for sockets: a fleet makes a million steps an hour.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._numbers = itertools.count(1)
        self._timers: list[tuple[float, int, _Timer]] = []
        super().__init__()
        self.set_task_factory(self._new_task)

    def time(self) -> float:
        return self._now_s

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _run_once(self) -> None:
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        timers = self._timers
        if not ready:
            while timers and timers[0][2].cancelled():
                heappop(timers)
            if timers:
                self._now_s = max(self._now_s, timers[0][0])
            elif not self._stopping and not self._selector.select(0):  # type: ignore[attr-defined]
                raise RuntimeError("every task waits and no timer is set: the program would hang for ever")
        while timers and timers[0][0] <= self._now_s:
            timer = heappop(timers)[2]
            if not timer.cancelled():
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()  # noqa: SLF001 - this is a loop

    def _new_task(
        self,
        _loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        *,
        context: Context | None = None,
    ) -> asyncio.Future[Any]:
        assert asyncio.iscoroutine(coro)
        task = _CountedTask(next(self._numbers), coro, loop=self, context=context)
        family = _family.get() if context is None else context.get(_family)
        if family is not None:
            family.tasks.add(task)
        return task


VIRTUAL_TIME: AnyioBackend = ("asyncio", {"loop_factory": VirtualTimeLoop})


def run_in_virtual_time(main: Callable[..., Awaitable[Result]], *args: object) -> Result:
    """Run `main(*args)`, its sleeps and deadlines without waiting; what it does, it does in the same order
    every time, in every process and under every PYTHONHASHSEED, as long as it iterates over no set itself.
    """
    with _numbered_scopes():
        return anyio.run(main, *args, backend_options={"loop_factory": VirtualTimeLoop})


@contextmanager
def _numbered_scopes() -> Iterator[None]:
    """Have anyio's cancel scopes hash by a number instead of by their address.

    A scope keeps its children in a set; the order in which it cancels them would differ from run to run.
    anyio has no hook for that, so the class is replaced for the time being (tests/unit/test_virtual_time.py
    notices when it moves).
    """
    plain = anyio_asyncio.CancelScope
    numbers = itertools.count(1)

    class NumberedScope(plain):  # type: ignore[misc, valid-type]
        __slots__ = ("_number",)

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._number = next(numbers)

        def __hash__(self) -> int:
            return self._number

    anyio_asyncio.CancelScope = NumberedScope  # type: ignore[misc]
    try:
        yield
    finally:
        anyio_asyncio.CancelScope = plain  # type: ignore[misc]
