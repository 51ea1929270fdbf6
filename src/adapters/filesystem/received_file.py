"""What files on their way in have in common: bytes go to a writer until the file appears or is let go."""

import os
from abc import ABC, abstractmethod
from pathlib import Path

from anyio import to_thread

from ...domain.ports.filesystem import ByteSource, FileKind, FileStat
from .hashing_writer import HashingWriter


class ReceivedFile(ABC):
    """An `IncomingFile` but for how it appears and goes.

    `_directory`, that of the target, is open as long as the file is neither published nor let go: a closed
    descriptor's number may be another file's by now.
    """

    _target: Path
    _directory: int | None
    _writer: HashingWriter

    @property
    def size_bytes(self) -> int:
        return self._writer.size_bytes

    async def sha256(self) -> str:
        return await self._writer.sha256()

    async def write(self, chunk: bytes) -> None:
        self._open_directory()
        await self._writer.write(chunk)

    async def fill(self, source: ByteSource, *, most_bytes: int) -> int:
        self._open_directory()
        return await self._writer.fill(source, most_bytes=most_bytes)

    async def publish(self) -> FileStat:
        return await to_thread.run_sync(self._publish)

    async def discard(self) -> None:
        if self._directory is not None:
            await to_thread.run_sync(self._discard)

    @abstractmethod
    def _publish(self) -> FileStat:
        """See `IncomingFile.publish`; blocks."""

    @abstractmethod
    def _discard(self) -> None:
        """See `IncomingFile.discard`; blocks. The file is open."""

    def _open_directory(self) -> int:
        if self._directory is None:
            msg = f"{self._target} was published or let go before"
            raise RuntimeError(msg)
        return self._directory


def make_durable(file: int) -> FileStat:
    """Make the content durable, just before it appears under its name; what it is then.

    The file is as old as its appearance, not its last byte: a hash kept beside the older file may have
    been written in between, and would pass for this one's. By the file system's own clock (no explicit
    time), the one that will date the hash file.
    """
    os.utime(file)
    os.fsync(file)
    status = os.fstat(file)
    return FileStat(FileKind.FILE, status.st_size, status.st_mtime_ns, status.st_ino)
