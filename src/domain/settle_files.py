"""Fetched files made safe from a power cut, some moments after they were handed out, many together."""

import logging
from dataclasses import dataclass, field

import anyio

from .cache_records import CacheRecord, CacheRecords
from .errors import FileUnwritable
from .ports.ranged_files import AssembledFile, WholeFile

log = logging.getLogger(__name__)

SAVE_EVERY_S = 5.0
PAUSE_PER_SAVING = 20  # times as long as a million records took
SETTLED_TOGETHER = 64  # files; a disk asked to make each of many safe at once has no time for anything else
MOST_UNSETTLED = 256  # each keeps two descriptors


@dataclass
class SettleFiles:
    """Waits for the disk, and only then keeps the records of what is safe.

    Files are handed out before: waiting then would hold up the frontend for nothing.
    """

    records: CacheRecords
    _unsettled: list[tuple[AssembledFile | WholeFile, str, CacheRecord]] = field(default_factory=list)
    _many: anyio.Event = field(default_factory=anyio.Event)

    async def add(self, file: AssembledFile | WholeFile, name: str, record: CacheRecord) -> None:
        """Settle `file`, which `record` describes under `name`, soon; at once where too many wait."""
        self._unsettled.append((file, name, record))
        if len(self._unsettled) >= SETTLED_TOGETHER:
            self._many.set()
        if len(self._unsettled) >= MOST_UNSETTLED:
            await self._settle_waiting()

    async def settle(self) -> None:
        """Settle what waits, and save the records; not to be cancelled."""
        with anyio.CancelScope(shield=True):
            await self._settle_waiting()
            await self.records.save()

    async def settle_forever(self) -> None:
        """Settle every few seconds, and sooner when many wait; the records are saved every few seconds.

        While nothing comes, is used or goes, nobody is woken.
        """
        save_at_s = anyio.current_time() + SAVE_EVERY_S
        while True:
            if not (self._unsettled or self.records.has_news):
                await self.records.news()
                save_at_s = max(save_at_s, anyio.current_time() + SAVE_EVERY_S)
            with anyio.move_on_after(save_at_s - anyio.current_time()):
                await self._many.wait()
            self._many = anyio.Event()
            await self._settle_waiting()
            started_s = anyio.current_time()
            if started_s >= save_at_s:
                await self.records.save()
                ended_s = anyio.current_time()
                save_at_s = ended_s + max(SAVE_EVERY_S, PAUSE_PER_SAVING * (ended_s - started_s))

    async def _settle_waiting(self) -> None:
        unsettled, self._unsettled = self._unsettled, []
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                for file, name, record in unsettled:
                    tasks.start_soon(self._settle_one, file, name, record)

    async def _settle_one(self, file: AssembledFile | WholeFile, name: str, record: CacheRecord) -> None:
        try:
            await file.settle()
        except FileUnwritable as error:
            log.warning("cached file may not survive a power cut: %s", error)
        else:
            self.records.settled(name, record)
