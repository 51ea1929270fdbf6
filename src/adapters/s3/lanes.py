"""Work in several lanes at once, their number by what was measured."""

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import checkpoint_if_cancelled

from ...domain.first_error import first_error
from ...domain.transfer_lanes import LanePlan
from .calls import Call

WINDOW_S = 0.1  # how long a rate is measured; the first window after a change does not count
THREADS = 64

Lane = Callable[[Callable[[], bool]], Awaitable[None]]


@dataclass
class Crew:
    """Runs one transfer.

    `stopped` tells its threads that nobody wants the rest; those that wait for an answer are woken, and
    `interrupt` wakes those that read one; `moved_bytes` is the progress.
    """

    limiter: CapacityLimiter
    plan: LanePlan = field(default_factory=LanePlan)
    stopped: threading.Event = field(default_factory=threading.Event)
    interrupt: Callable[[], None] = lambda: None
    moved_bytes: int = 0
    _calls: set[Call[int]] = field(default_factory=set)
    _running: int = 0
    _ended: anyio.Event = field(default_factory=anyio.Event)

    @property
    def alone(self) -> bool:
        """Whether one lane is all there is to be."""
        return self.plan.lanes == 1

    async def run(self, lane: Lane, work_left: Callable[[], bool]) -> None:
        """Run `lane` in as many tasks as pay off until the work is done; the first error ends all.

        A lane takes piece after piece while it may stay (what it is called with says so) and there is work.
        Cancelled, the threads are stopped too.
        """
        try:
            await self._run(lane, work_left)
        except BaseExceptionGroup as group:
            raise first_error(group) from group

    async def _run(self, lane: Lane, work_left: Callable[[], bool]) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._stop_threads_at_the_end)
            self._start(tasks, lane)
            while not self._ended.is_set():
                rate = await self._measured()
                if not work_left():
                    continue  # what is still running ends by itself
                self.plan.observe(rate)
                while self._running < self.plan.lanes and work_left() and not self._ended.is_set():
                    self._start(tasks, lane)
            tasks.cancel_scope.cancel()

    async def in_thread(self, work: Callable[..., int], *arguments: object) -> int:
        """Run `work`, which looks at `stopped` now and then, in a thread."""
        call = Call(work)
        self._calls.add(call)
        try:
            return await to_thread.run_sync(call, *arguments, limiter=self.limiter)
        except Exception:
            await checkpoint_if_cancelled()  # it did not fail, it was woken
            raise
        finally:
            self._calls.discard(call)

    def _start(self, tasks: anyio.abc.TaskGroup, lane: Lane) -> None:
        self._running += 1
        tasks.start_soon(self._one, lane)

    async def _one(self, lane: Lane) -> None:
        try:
            await lane(lambda: self._running <= self.plan.lanes)
        finally:
            self._running -= 1
            if self._running == 0:
                self._ended.set()

    async def _measured(self) -> float:
        """Bytes a second over the second of two windows; less is measured when the work ends."""
        for _ in range(2):
            before, since_s = self.moved_bytes, anyio.current_time()
            with anyio.move_on_after(WINDOW_S):
                await self._ended.wait()
        return (self.moved_bytes - before) / max(anyio.current_time() - since_s, 1e-6)

    async def _stop_threads_at_the_end(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.stopped.set()
            self.interrupt()
            for call in tuple(self._calls):
                call.end()
