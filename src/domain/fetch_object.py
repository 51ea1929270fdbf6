"""One version of an object brought to its place on the disk, whole and as it was stored."""

import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial

import anyio

from .errors import FileUnwritable, NoSpace
from .first_error import first_error
from .object_checks import Check, ObjectDamaged, find_check
from .ports.filesystem import FileStat, FileSystem, RootedPath
from .ports.object_store import ObjectInfo, ObjectStore, StagingKey, StoredObject
from .ports.ranged_files import AssembledFile, RangedFiles, WholeFile
from .store_errors import ObjectChanged, ObjectInvalid

log = logging.getLogger(__name__)

SMALL_BYTES = 4 * 1024 * 1024  # up to here each visit to another thread costs more than what it saves


@dataclass
class Progress:
    """How far a fetch is, for those who wait."""

    target: AssembledFile | None = None

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
    """Fetches objects of `store`. `verify`: compare what came with the hash that metadata or ETag tell."""

    store: ObjectStore
    filesystem: FileSystem
    ranged: RangedFiles
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
        version = f"{info.version} {key}"
        if info.size_bytes > SMALL_BYTES and await self.ranged.kept(place) != version:
            space = await self.filesystem.space(place.path)
            if space is not None and info.size_bytes > space.available_bytes:
                need = f"{info.size_bytes} bytes needed, {space.available_bytes} available"
                raise NoSpace(place.path, f"{need}; free some and try again")
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
