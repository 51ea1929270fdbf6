"""One version of an object brought to its place on the disk, whole and as it was stored."""

import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial

import anyio

from .cache_janitor import CacheJanitor
from .errors import FileUnwritable, NoSpace
from .first_error import first_error
from .object_checks import Check, ObjectDamaged, find_check
from .ports.filesystem import FileStat, FileSystem, RootedPath
from .ports.object_store import ObjectInfo, ObjectStore, StagingKey, StoredObject
from .ports.ranged_files import AssembledFile, RangedFiles, WholeFile
from .store_errors import ObjectChanged, ObjectInvalid

log = logging.getLogger(__name__)

SMALL_BYTES = 4 * 1024 * 1024  # up to here each visit to another thread costs more than what it saves
SLACK_BYTES = 64 * 1024  # what a large file takes besides its content while it is assembled


@dataclass
class Progress:
    """How far a fetch is, for those who wait. `needed_bytes`: what the file takes of the disk meanwhile."""

    target: AssembledFile | None = None
    needed_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Size of the object; 0 as long as nothing is known."""
        return self.target.size_bytes if self.target else 0

    @property
    def held_bytes(self) -> int:
        """How much is here."""
        return self.total_bytes - sum(map(len, self.target.missing)) if self.target else 0


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that appeared, still to be settled; what it was made of, and how it looked then."""

    file: AssembledFile | WholeFile
    info: ObjectInfo
    stat: FileStat


@dataclass
class FetchObject:
    """Fetches objects of `store`, and has `janitor` make room where there is none.

    `verify`: compare what came with the hash that metadata or ETag tell.
    """

    store: ObjectStore
    filesystem: FileSystem
    ranged: RangedFiles
    janitor: CacheJanitor
    verify: bool = True

    async def fetch(
        self, key: StagingKey, place: RootedPath, known: ObjectInfo | None, progress: Progress
    ) -> Fetched:
        """Let the object appear at `place`; with `known`, that version of it.

        What fails leaves the old file as it was; what came in vain is dropped unless it can be gone on with.

        Raises:
            ObjectMissing, ObjectChanged, ObjectInvalid, ObjectDamaged: it cannot be had as it is to be.
            StoreUnavailable, StoreRefused: the store does not give it.
            NoSpace, FileUnwritable: it does not fit here.
        """
        try:
            return await self._fetch(key, place, known, progress)
        except NoSpace as full:
            if not await self.janitor.make_room(progress.needed_bytes):
                raise await self._no_space(place, progress.needed_bytes, full) from full
        try:
            return await self._fetch(key, place, known, progress)
        except NoSpace as full:
            raise await self._no_space(place, progress.needed_bytes, full) from full

    async def _no_space(self, place: RootedPath, needed_bytes: int, full: NoSpace) -> NoSpace:
        """`full` with figures, where those are the reason: it may as well be a quota, or the inodes."""
        space = await self.filesystem.space(place.path)
        if space is None or space.available_bytes >= needed_bytes:
            return full
        reason = (
            f"{needed_bytes} bytes needed, {space.available_bytes} free, and the rest of the cache is in use"
            " or was asked for a moment ago; delete models or give the cache a larger disk, then ask again"
        )
        return NoSpace(place.path, reason)

    async def _fetch(
        self, key: StagingKey, place: RootedPath, known: ObjectInfo | None, progress: Progress
    ) -> Fetched:
        stored = await self.store.open(key, known)
        try:
            return await self._receive(key, place, stored, progress)
        finally:
            with anyio.CancelScope(shield=True):
                await stored.close()

    async def _receive(
        self, key: StagingKey, place: RootedPath, stored: StoredObject, progress: Progress
    ) -> Fetched:
        info, operation = stored.info, f"getting object {key}"
        if info.size_bytes < 0:
            raise ObjectInvalid(operation, "the store does not say how large it is")
        progress.needed_bytes = info.size_bytes + (SLACK_BYTES if info.size_bytes > SMALL_BYTES else 0)
        check = await find_check(self.store, key, info) if self.verify else None
        if stored.whole is not None:
            approve = partial(_approve, check=check, operation=operation)
            file = await self.ranged.put_whole(place, stored.whole, approve)
            return Fetched(file, info, file.stat)
        target = progress.target = await self._target(key, place, info)
        try:
            await _copy_and_check(stored, target, check, operation)
            stat = await target.publish()
        except (ObjectDamaged, ObjectChanged, ObjectInvalid, FileUnwritable):
            await _end(target.discard())  # of no use to a later attempt
            raise
        except BaseException:
            await _end(target.keep())
            raise
        return Fetched(target, info, stat)

    async def _target(self, key: StagingKey, place: RootedPath, info: ObjectInfo) -> AssembledFile:
        # What was kept of another version goes as the file is begun: the room it takes is not lacking.
        if info.size_bytes > SMALL_BYTES and await self.ranged.kept(place) is None:
            space = await self.filesystem.space(place.path)
            if space is not None and info.size_bytes > space.available_bytes:
                raise NoSpace(place.path, "the disk is full")
        version = f"{info.version} {key}"
        return await self.ranged.assemble(place, version=version, size_bytes=info.size_bytes)


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
