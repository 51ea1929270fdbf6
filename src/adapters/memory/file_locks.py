"""Locks between those who share a file system in memory."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from anyio.lowlevel import checkpoint

from ...domain.ports.filesystem import FileKind, RootedPath
from .disk import Disk
from .filesystem import InMemoryFileSystem


@dataclass
class InMemoryFileLock:
    """A `FileLock`; a killed holder's is gone with `disk.locked`."""

    disk: Disk
    real: PurePosixPath
    held: bool = True

    async def release(self) -> None:
        await checkpoint()
        if self.held:
            self.held = False
            self.disk.locked.discard(self.real)


@dataclass
class InMemoryFileLocks:
    """`FileLocks` of `filesystem`: everybody who looks at the same one is excluded."""

    filesystem: InMemoryFileSystem

    async def take(self, place: RootedPath) -> InMemoryFileLock | None:
        found = await self.filesystem.locate(place)
        if found is None or found.kind is not FileKind.FILE:
            file = await self.filesystem.open_incoming(place, mode=0o600)
            await file.publish()
        disk = self.filesystem.disk
        real = disk.beneath(place)
        if real in disk.locked:
            return None
        disk.locked.add(real)
        return InMemoryFileLock(disk, real)
