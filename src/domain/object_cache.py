"""Objects of the store as files of this node: fetched once, compared with the store at every request."""

import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from .cache_keys import cache_place
from .cache_records import CacheRecord, CacheRecords
from .errors import FileUnreadable, FileUnwritable, NoSpace, WorkerError
from .first_error import first_error
from .object_checks import Check, ObjectDamaged, check_of, parts_of
from .ports.clock import Clock
from .ports.filesystem import FileKind, FileStat, FileSystem, RootedPath
from .ports.object_store import ObjectInfo, ObjectStore, StagingKey, StoredObject
from .ports.ranged_files import AssembledFile, RangedFiles, WholeFile
from .store_errors import ObjectChanged, ObjectInvalid, StoreFailure
from .store_health import StoreHealth

log = logging.getLogger(__name__)

ANSWER_S = 570.0  # the frontend waits 10 minutes; an answer beats its timeout
SAVE_EVERY_S = 5.0
ATTEMPTS = 3  # with an object that is replaced while it is read
FETCHES_AT_ONCE = 32
SETTLED_TOGETHER = 64  # files; a disk asked to make each of many safe at once has no time for anything else
MOST_UNSETTLED = 256  # each keeps two descriptors
SMALL_BYTES = 4 * 1024 * 1024  # up to here each visit to another thread costs more than what it saves


@dataclass(eq=False)
class DownloadFailed(WorkerError):
    """An object could not be brought to this node; the cached file, if there was one, is as it was."""

    key: str
    cause: WorkerError

    def __str__(self) -> str:
        return f"downloading {self.key}: {self.cause}"


@dataclass(eq=False)
class StillDownloading(WorkerError):
    """A download takes longer than the frontend waits; it goes on, and the next request joins it."""

    key: str
    held_bytes: int
    total_bytes: int

    def __str__(self) -> str:
        held = f"{self.held_bytes} of {self.total_bytes} bytes are here" if self.total_bytes else "it waits"
        return f"downloading {self.key}: {held} and it goes on; ask again"


@dataclass
class _Fetch:
    """One running fetch, for all who ask."""

    key: StagingKey
    done: anyio.Event = field(default_factory=anyio.Event)
    error: WorkerError | None = None
    target: AssembledFile | None = None

    def still(self) -> StillDownloading:
        if self.target is None:
            return StillDownloading(self.key, 0, 0)
        total = self.target.size_bytes
        return StillDownloading(self.key, total - sum(map(len, self.target.missing)), total)


@dataclass
class ObjectCache:
    """The cache directory `root`. Only while `running` it fetches.

    A file is handed out when the store holds the very version it was made of: one HEAD for each request.
    Changed objects are fetched whole beside the old file, which readers keep, and renamed onto it. `verify`:
    compare what came with the hash that the object's metadata or ETag tell.
    """

    store: ObjectStore
    filesystem: FileSystem
    ranged: RangedFiles
    records: CacheRecords
    health: StoreHealth
    clock: Clock
    root: Path
    verify: bool = True
    _fetches: dict[Path, _Fetch] = field(default_factory=dict)
    _unsettled: list[tuple[AssembledFile | WholeFile, str, CacheRecord]] = field(default_factory=list)
    _many_unsettled: anyio.Event = field(default_factory=anyio.Event)
    _tasks: TaskGroup | None = None
    _slots: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(FETCHES_AT_ONCE))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve requests; leaving cancels what is still fetched, and keeps what came of it.

        Raises:
            FileUnwritable: the cache directory cannot be created.
        """
        await self.filesystem.make_directory(self.root)
        await self.records.load()
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._settle_forever)
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._settle_all()

    @property
    def busy(self) -> frozenset[Path]:
        """Relative paths of the files that are being fetched or compared."""
        return frozenset(path.relative_to(self.root) for path in self._fetches)

    async def ensure(self, key: str) -> Path:
        """The path of a file that holds what the store has under `key` now.

        Requests for one file share one fetch; it goes on when all who asked are gone.

        Raises:
            KeyEscapesCache, InvalidKey: no cached file can have this key.
            DownloadFailed: the object is missing, damaged or out of reach, or does not fit here.
            StillDownloading: it takes longer than the frontend waits.
        """
        place = cache_place(key, self.root)
        fetch: _Fetch | None = None
        with anyio.move_on_after(ANSWER_S):
            while True:
                fetch = self._fetches.get(place.path)
                if fetch is None:
                    fetch = self._begin(StagingKey(key), place)
                await fetch.done.wait()
                if fetch.key != key:  # another key of the same path: it has its turn first
                    continue
                if fetch.error is not None:
                    raise DownloadFailed(key, fetch.error)
                return place.path
        assert fetch is not None
        raise fetch.still()

    def _begin(self, key: StagingKey, place: RootedPath) -> _Fetch:
        if self._tasks is None:
            raise DownloadFailed(key, StoreFailure("the object cache", "this worker is shutting down"))
        fetch = self._fetches[place.path] = _Fetch(key)
        self._tasks.start_soon(self._run, fetch, place)
        return fetch

    async def _run(self, fetch: _Fetch, place: RootedPath) -> None:
        try:
            async with self._slots:
                await self._bring(fetch, place)
        except WorkerError as error:
            fetch.error = error
            self.health.failed(error)
        except Exception as error:
            # A bug must not leave those who wait without an answer, nor end the worker.
            log.exception("fetching failed: key=%s", fetch.key)
            fetch.error = StoreFailure("internal error of the worker", f"{type(error).__name__}: {error}")
        except anyio.get_cancelled_exc_class():
            fetch.error = StoreFailure("the object cache", "this worker is shutting down")
            raise
        else:
            self.health.worked()
        finally:
            del self._fetches[place.path]
            fetch.done.set()

    async def _bring(self, fetch: _Fetch, place: RootedPath) -> None:
        """Have the file at `place` hold the object."""
        known: ObjectInfo | None = None
        stat = await self.filesystem.locate(place)
        if stat is not None and stat.kind is FileKind.FILE:
            known = await self.store.head(fetch.key)
            if await self._is_fresh(fetch.key, place, stat, known):
                self.records.used(str(place.relative), self._now_s())
                return
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._fetch(fetch, place, known)
            except ObjectChanged:
                known = None
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    async def _is_fresh(self, key: StagingKey, place: RootedPath, stat: FileStat, known: ObjectInfo) -> bool:
        name = str(place.relative)
        record = self.records.get(name)
        if record is not None and record.describes(stat, key):
            return record.version == known.version
        if stat.size_bytes != known.size_bytes or not await self._hashes_alike(key, place, known):
            return False
        log.info("cached file is the object's, by its hash: key=%s", key)
        self.records.put(name, self._record(key, known, stat))
        return True

    async def _hashes_alike(self, key: StagingKey, place: RootedPath, info: ObjectInfo) -> bool:
        """Whether a file of unknown origin has the hash of the object; False where nobody can tell."""
        check = await self._check_of(key, info, anyway=True)
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

    async def _fetch(self, fetch: _Fetch, place: RootedPath, known: ObjectInfo | None) -> None:
        stored = await self.store.open(fetch.key, known)
        try:
            await self._receive(fetch, place, stored)
        finally:
            with anyio.CancelScope(shield=True):
                await stored.close()

    async def _receive(self, fetch: _Fetch, place: RootedPath, stored: StoredObject) -> None:
        info, operation = stored.info, f"getting object {fetch.key}"
        if info.size_bytes < 0:
            raise ObjectInvalid(operation, "the store does not say how large it is")
        check = await self._check_of(fetch.key, info)
        if stored.whole is not None:
            approve = partial(_approve, check=check, operation=operation)
            file = await self.ranged.put_whole(place, stored.whole, approve)
            await self._appeared(fetch.key, place, info, file, file.stat)
            return
        target = await self._target(fetch.key, place, info)
        fetch.target = target
        try:
            await _copy_and_check(stored, target, check, operation)
            stat = await target.publish()
        except (ObjectDamaged, ObjectChanged, ObjectInvalid, FileUnwritable):
            await _end(target.discard())  # of no use to a later attempt
            raise
        except BaseException:
            await _end(target.keep())
            raise
        await self._appeared(fetch.key, place, info, target, stat)

    async def _appeared(
        self,
        key: StagingKey,
        place: RootedPath,
        info: ObjectInfo,
        file: AssembledFile | WholeFile,
        stat: FileStat,
    ) -> None:
        """Remember what was handed out; that the disk has it, is waited for later."""
        record = self._record(key, info, stat, settled=False)
        self.records.put(str(place.relative), record)
        log.info("fetched: key=%s size_bytes=%d", key, info.size_bytes)
        self._unsettled.append((file, str(place.relative), record))
        if len(self._unsettled) >= SETTLED_TOGETHER:
            self._many_unsettled.set()
        if len(self._unsettled) >= MOST_UNSETTLED:
            await self._settle_all()

    async def _target(self, key: StagingKey, place: RootedPath, info: ObjectInfo) -> AssembledFile:
        version = f"{info.version} {key}"
        if info.size_bytes > SMALL_BYTES and await self.ranged.kept(place) != version:
            space = await self.filesystem.space(place.path)
            if space is not None and info.size_bytes > space.available_bytes:
                need = f"{info.size_bytes} bytes needed, {space.available_bytes} available"
                raise NoSpace(place.path, f"{need}; free some and try again")
        return await self.ranged.assemble(place, version=version, size_bytes=info.size_bytes)

    async def _check_of(self, key: StagingKey, info: ObjectInfo, *, anyway: bool = False) -> Check | None:
        if not self.verify and not anyway:
            return None
        parts = parts_of(info)
        part_bytes = info.size_bytes if parts == 1 else None
        if parts and parts > 1:
            part_bytes = await self.store.part_size_bytes(key, info, parts)
        return check_of(info, part_bytes)

    async def _settle_all(self) -> None:
        """Wait for the disk, and keep the records of what is safe.

        The files were handed out before: waiting then would have held up the frontend for nothing.
        """
        unsettled, self._unsettled = self._unsettled, []
        with anyio.CancelScope(shield=True):
            for target, name, record in unsettled:
                try:
                    await target.settle()
                except FileUnwritable as error:
                    log.warning("cached file may not survive a power cut: %s", error)
                else:
                    self.records.settled(name, record)
            await self.records.save()

    def _record(self, key: str, info: ObjectInfo, stat: FileStat, *, settled: bool = True) -> CacheRecord:
        return CacheRecord(
            key=key,
            version=info.version,
            inode=stat.inode,
            size_bytes=stat.size_bytes,
            modified_ns=stat.modified_ns,
            used_s=self._now_s(),
            settled=settled,
        )

    async def _settle_forever(self) -> None:
        """A few seconds after something has come or was used; a worker at rest is not woken."""
        while True:
            if not self._unsettled:
                await self.records.change()
            with anyio.move_on_after(SAVE_EVERY_S):
                await self._many_unsettled.wait()
            self._many_unsettled = anyio.Event()
            await self._settle_all()

    def _now_s(self) -> float:
        return self.clock.now().timestamp()


def _approve(content: bytes, check: Check | None, operation: str) -> None:
    if check is not None:
        check.verify_content(content, operation)


async def _copy_and_check(
    stored: StoredObject, target: AssembledFile, check: Check | None, operation: str
) -> None:
    """Fill `target`, hashing what has come while more comes."""
    if target.size_bytes <= SMALL_BYTES:
        await stored.copy_to(target)
        if check is not None:
            await check.verify(target, operation)
        return
    try:
        async with anyio.create_task_group() as tasks:
            if check is not None:
                tasks.start_soon(check.verify, target, operation)
            await stored.copy_to(target)
    except BaseExceptionGroup as group:
        raise first_error(group) from group


async def _end(ending: Coroutine[None, None, None]) -> None:
    """Let a file go whatever happens around; that it cannot be let go in good order is told, no more."""
    with anyio.CancelScope(shield=True):
        try:
            await ending
        except FileUnwritable as error:
            log.warning("%s", error)
