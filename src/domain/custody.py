"""Custody: one worker for each state directory, and every backend recognisable as its own."""

from dataclasses import dataclass

from .ports.keeper import Keeper
from .ports.processes import launch_mark
from .ports.state_lock import StateLock, Tenure


@dataclass
class Custody:
    """Who owns the backends of a state directory: this worker while it lives, then the keeper."""

    lock: StateLock
    keeper: Keeper
    _tenure: Tenure | None = None
    _launches: int = 0

    @property
    def owner(self) -> str:
        """What every mark of this state directory begins with; only after `take`."""
        assert self._tenure is not None, "the state directory is taken first"
        return self._tenure.owner

    @property
    def is_new(self) -> bool:
        """Whether no worker ever was here before this one, so that nothing can be left behind."""
        return self._tenure is not None and self._tenure.first

    async def take(self) -> None:
        """Make the state directory ours.

        Raises:
            StateInUse: another worker has it.
            FileUnwritable: it cannot be made or locked.
        """
        self._tenure = await self.lock.take()

    async def next_mark(self) -> str:
        """A mark no launch had before. From now on a keeper is on duty: it is there before the process is."""
        assert self._tenure is not None, "the state directory is taken first"
        await self.keeper.post()
        self._launches += 1
        return launch_mark(self._tenure.owner, f"{self._tenure.run}-{self._launches}")

    async def keep_watch(self) -> None:
        """Have a keeper on duty for backends that run already."""
        await self.keeper.post()

    async def give_back(self, *, backends_stay: bool) -> None:
        """Let another worker take over, or the keeper if `backends_stay` and none comes; idempotent."""
        if self._tenure is not None:
            self._tenure = None
            if not backends_stay:
                await self.keeper.dismiss()
            await self.lock.release()
