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
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import Any, TypeVar, cast
from weakref import WeakSet

import anyio

from .anyio_in_virtual_time import as_it_was_afterwards, number_scopes, settle_on

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


class _Step:
    """What an `asyncio.Handle` is to those who have one, without what it keeps for a debugger."""

    __slots__ = ("args", "callback", "context", "is_cancelled")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = context
        self.is_cancelled = False

    def cancel(self) -> None:
        """Not to be run; what it holds is let go of at once."""
        self.is_cancelled = True
        self.callback, self.args = None, ()

    def cancelled(self) -> bool:
        return self.is_cancelled


class _Timer(_Step):
    """A step at a time; its loop passes over a cancelled one when its time comes."""

    __slots__ = ("when_s",)

    when_s: float

    def when(self) -> float:
        return self.when_s


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

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Step:
        step = _Step(callback, args, copy_context() if context is None else context)
        self._ready.append(step)  # type: ignore[attr-defined]
        return step

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Step:
        return self.call_soon(
            callback, *args, context=context
        )  # the loop never sleeps, so it needs no waking

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Timer:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Timer:
        timer = _Timer(callback, args, copy_context() if context is None else context)
        timer.when_s = when
        heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _run_once(self) -> None:
        ready: deque[_Step] = self._ready  # type: ignore[attr-defined]
        if not ready:
            self._jump()
        timers, now_s = self._timers, self._now_s
        while timers and timers[0][0] <= now_s:
            timer = heappop(timers)[2]
            if not timer.is_cancelled:
                ready.append(timer)
        for _ in range(len(ready)):
            step = ready.popleft()
            if step.callback is not None:
                try:
                    step.context.run(step.callback, *step.args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as in asyncio, it does not end the loop
                    what = f"Exception in {step.callback}"
                    self.call_exception_handler({"message": what, "exception": error})

    def _jump(self) -> None:
        """Everybody waits: let it be the time of the next timer."""
        timers = self._timers
        while timers and timers[0][2].is_cancelled:
            heappop(timers)
        if timers:
            self._now_s = max(self._now_s, timers[0][0])
        elif not self._stopping and not self._selector.select(0):  # type: ignore[attr-defined]
            raise RuntimeError("every task waits and no timer is set: the program would hang for ever")

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

    async def within() -> Result:
        settle_on(asyncio.get_running_loop())
        return await main(*args)

    with as_it_was_afterwards():
        number_scopes()
        return anyio.run(within, backend_options={"loop_factory": VirtualTimeLoop})
