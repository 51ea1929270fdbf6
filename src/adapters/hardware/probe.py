"""Blocking questions to drivers, which may hang for ever."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


@dataclass
class _Run:
    started_at_s: float
    failure: str = ""
    finished: asyncio.Event = field(default_factory=asyncio.Event)


class Probe(Generic[T]):
    """Asks `read` in a thread, one at a time, and remembers its last good answer.

    The thread is a daemon, unlike anyio's: those are joined at the interpreter's end, so that one hung
    driver call would keep a worker from ever exiting.
    """

    def __init__(self, name: str, read: Callable[[], T]) -> None:
        self._name = name
        self._read = read
        self._last: T | None = None
        self._run: _Run | None = None

    def start(self) -> None:
        """Ask, unless the last question is still open: one that hangs is not asked again."""
        if self._run is not None and not self._run.finished.is_set():
            return
        self._run = run = _Run(anyio.current_time())
        thread = threading.Thread(
            target=self._work, args=(run, asyncio.get_running_loop()), name=self._name, daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads for us
            run.failure = f"{self._name}: {error}"
            run.finished.set()

    async def answer(self, timeout_s: float) -> tuple[T | None, str]:
        """The answer, `timeout_s` after its question was asked at the latest.

        The text is "", or one line saying why the answer is an old one (None: there never was one).
        """
        run = self._run
        assert run is not None, "start() comes first"
        with anyio.move_on_after(max(0.0, run.started_at_s + timeout_s - anyio.current_time())):
            await run.finished.wait()
        if not run.finished.is_set():
            return self._last, f"{self._name}: no answer within {timeout_s:g} s"
        return self._last, run.failure

    def _work(self, run: _Run, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._last = self._read()
        except Exception as error:  # noqa: BLE001 - drivers fail in ways of their own; all become warnings
            run.failure = f"{self._name}: {' '.join(str(error).split()) or type(error).__name__}"
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(run.finished.set)
