"""An event loop whose clock jumps to the next timer instead of waiting, and in which order does not change.

A value for anyio's `anyio_backend` fixture:

    @pytest.fixture
    def anyio_backend() -> AnyioBackend:
        return VIRTUAL_TIME

`run_in_virtual_time` is for programs, and goes one step further: it repeats. Worker threads and real sockets
have no place in this loop: it would jump past them.
"""

import asyncio
import itertools
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from typing import Any, TypeVar

import anyio
from anyio._backends import _asyncio as anyio_asyncio

AnyioBackend = tuple[str, dict[str, Any]]
Result = TypeVar("Result")


class _JumpingSelector(selectors.BaseSelector):
    """Adds the wait to `now_s` instead of waiting."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now_s = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:  # only a signal's wake-up could still move anything
            if ready := self._real.select(0):
                return ready
            raise RuntimeError("every task waits and no timer is set: the test would hang for ever")
        if timeout > 0:
            self.now_s += timeout
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class _CountedTask(asyncio.Task[Any]):
    """A task whose hash is its number: anyio and asyncio keep tasks in sets and walk through them."""

    def __init__(self, number: int, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and moves only when every task waits for it."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        self._numbers = itertools.count(1)
        super().__init__(self._jumping)
        self.set_task_factory(self._new_task)

    def time(self) -> float:
        return self._jumping.now_s

    def _new_task(
        self,
        _loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        *,
        context: Context | None = None,
    ) -> asyncio.Future[Any]:
        assert asyncio.iscoroutine(coro)
        return _CountedTask(next(self._numbers), coro, loop=self, context=context)


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
