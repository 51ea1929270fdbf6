"""A cached file made what the store holds now: left as it is while it is that, else fetched anew."""

import logging
from dataclasses import dataclass

import anyio

from .cache_directory import CacheDirectory
from .errors import FileUnreadable
from .fetch_object import FetchObject, Progress
from .object_checks import find_check
from .ports.filesystem import FileKind, FileStat, RootedPath
from .ports.object_store import ObjectInfo, ObjectStore, StagingKey
from .ports.ranged_files import RangedFiles
from .settle_files import SettleFiles
from .store_errors import ObjectChanged

log = logging.getLogger(__name__)

ATTEMPTS = 3  # with an object that is replaced while it is read


@dataclass
class RefreshObject:
    """Compares files of `directory` with their objects by one HEAD each, and has what changed fetched."""

    store: ObjectStore
    ranged: RangedFiles
    directory: CacheDirectory
    fetching: FetchObject
    settling: SettleFiles

    async def refresh(self, key: StagingKey, place: RootedPath, progress: Progress) -> None:
        """Have the file at `place` hold the object.

        Raises:
            WorkerError: what `FetchObject.fetch` raises, also for an object that changes all the time.
        """
        known: ObjectInfo | None = None
        stat = await self.directory.filesystem.locate(place)
        if stat is not None and stat.kind is FileKind.FILE:
            known = await self.store.head(key)
            if await self._is_fresh(key, place, stat, known):
                self.directory.records.used(str(place.relative), self.directory.now_s())
                return
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._fetch(key, place, known, progress)
            except ObjectChanged:
                known = None
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    async def _fetch(
        self, key: StagingKey, place: RootedPath, known: ObjectInfo | None, progress: Progress
    ) -> None:
        fetched = await self.fetching.fetch(key, place, known, progress)
        name = str(place.relative)
        record = self.directory.record_of(key, fetched.info, fetched.stat, settled=False)
        self.directory.records.put(name, record)
        log.info("fetched: key=%s size_bytes=%d", key, fetched.info.size_bytes)
        await self.settling.add(fetched.file, name, record)

    async def _is_fresh(self, key: StagingKey, place: RootedPath, stat: FileStat, known: ObjectInfo) -> bool:
        name = str(place.relative)
        record = self.directory.records.get(name)
        if record is not None and record.describes(stat, key):
            return record.version == known.version
        if stat.size_bytes != known.size_bytes or not await self._hashes_alike(key, place, known):
            return False
        log.info("cached file is the object's, by its hash: key=%s", key)
        self.directory.records.put(name, self.directory.record_of(key, known, stat))
        return True

    async def _hashes_alike(self, key: StagingKey, place: RootedPath, info: ObjectInfo) -> bool:
        """Whether a file of unknown origin has the hash of the object; False where nobody can tell."""
        check = await find_check(self.store, key, info)
        source = await self.ranged.open_source(place) if check else None
        if check is None or source is None:
            return False
        try:
            return await check.of(source) == check.expected
        except FileUnreadable as error:
            log.warning("cached file not used: %s", error)
            return False
        finally:
            with anyio.CancelScope(shield=True):
                await source.close()
