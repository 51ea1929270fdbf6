"""One life of a worker on a simulated machine: assembled by the product's container, fenced, run, killed."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from ....adapters.memory.bus import InMemoryMessageBus
from ...startup import leaves
from ...virtual_time import TaskFamily
from ...worker import Worker
from .fence import Fence
from .host import Host


@dataclass(eq=False)
class Life:
    """A worker from its start to its end on `host`. `number` counts the lives of the host.

    `ready_s`: when it first took commands; None before. `failure`: what ended it, if anything did.
    """

    host: Host
    number: int
    fence: Fence
    bus: InMemoryMessageBus
    worker: Worker
    stopping: bool = False
    over: bool = False
    ready_s: float | None = None
    failure: BaseException | None = None
    _family: TaskFamily | None = None

    def begin(self, ended: Callable[["Life"], None]) -> None:
        """Let it run; `ended` hears when it has stopped or failed, not of a kill."""
        self._family = TaskFamily(self._run(ended))

    async def _run(self, ended: Callable[["Life"], None]) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(self.worker.run)
                self.ready_s = anyio.current_time()
        except (Exception, asyncio.CancelledError) as error:
            if self.fence.down:  # what the code of a dead process runs into means nothing
                return
            if isinstance(error, asyncio.CancelledError):
                raise
            self.failure = _first(error)
        finally:
            self.over = True
        if not self.fence.down:
            ended(self)

    def stop(self) -> None:
        """Ask it to stop in good order."""
        self.stopping = True
        self.worker.stop_requested.set()

    def kill(self) -> None:
        """End it as SIGKILL does: from now on nothing it does has an effect, and its sockets are closed."""
        self.fence.lower()
        self.bus.sever()
        self.host.worker_died()

    async def clear_away(self) -> None:
        """After `kill`: end the tasks of the dead process, which achieve nothing any more."""
        if self._family is not None:
            await self._family.end()

    @property
    def tasks(self) -> int:
        """How many tasks it is made of now."""
        return sum(not task.done() for task in self._family.tasks) if self._family else 0

    @property
    def is_up(self) -> bool:
        """Whether it takes commands."""
        return self.ready_s is not None and not (self.over or self.stopping or self.fence.down)


def _first(error: BaseException) -> BaseException:
    """The error itself, or the first of a group."""
    return leaves(error)[0] if isinstance(error, BaseExceptionGroup) else error
