"""Whether the object store answers: operations tell, and while it does not, we ask by ourselves."""

import logging
from dataclasses import dataclass, field

import anyio

from .errors import WorkerError
from .ports.object_store import ObjectStore
from .store_errors import StoreRefused, StoreUnavailable

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


@dataclass
class StoreHealth:
    """Watches `store`. `worry` is what is wrong with it, empty when nothing is; it heals by itself."""

    store: ObjectStore
    worry: str = ""
    _doubtful: anyio.Event = field(default_factory=anyio.Event)

    @property
    def worries(self) -> tuple[str, ...]:
        """For readiness checks."""
        return ("the object store cannot be used",) if self.worry else ()

    def failed(self, error: WorkerError) -> None:
        """An operation failed: look after the store if it was the store's fault."""
        if isinstance(error, StoreUnavailable | StoreRefused):
            self.worry = str(error)
            self._doubtful.set()

    def worked(self) -> None:
        """An operation got through."""
        if self.worry:
            log.info("the object store answers again")
            self.worry = ""

    async def watch(self) -> None:
        """Ask at once, and after every doubt until the store answers; pauses of 1 s, growing to 30 s."""
        while True:
            pause_s = FIRST_PAUSE_S
            while not await self._answers():
                await anyio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._doubtful = anyio.Event()
            await self._doubtful.wait()

    async def _answers(self) -> bool:
        try:
            await self.store.check()
        except WorkerError as error:
            if str(error) != self.worry:
                log.warning("object store: %s; asking again until it answers", error)
            self.worry = str(error)
            return False
        self.worked()
        return True
