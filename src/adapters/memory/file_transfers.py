"""Files on their way into and out of the in-memory file system."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

from anyio.lowlevel import checkpoint

from ...domain.errors import FileUnwritable
from ...domain.file_names import TARGET_SIDECAR_SUFFIX, partial_directory_name
from ...domain.ports.filesystem import ByteSource, FileKind, FileStat
from .disk import Disk
from .tree import FileNode

CHUNK_BYTES = 1024 * 1024  # what the port allows


class InMemoryIncomingFile:
    """An `IncomingFile` at the real path `hidden`, which lies beside its target or below it, as on a disk.

    `content` is what is there already.
    """

    def __init__(
        self, disk: Disk, path: Path, target: PurePosixPath, hidden: PurePosixPath, mode: int, content: bytes
    ) -> None:
        self._disk = disk
        self._path = path
        self._target = target
        self._hidden = hidden
        self._content = bytearray(content)
        self._digest = hashlib.sha256(content)
        beside = (partial_directory_name(target.name), target.name + TARGET_SIDECAR_SUFFIX)
        self.has_leftovers = any(disk.tree.at(target.with_name(name)) is not None for name in beside)
        self._node: FileNode | None = disk.tree.new_file(b"", mode)
        self._node.content = self._content
        disk.tree.attach(self._hidden, self._node)

    @property
    def size_bytes(self) -> int:
        return len(self._content)

    async def sha256(self) -> str:
        await checkpoint()
        return self._digest.hexdigest()

    async def write(self, chunk: bytes) -> None:
        await checkpoint()
        self._append(chunk)

    async def fill(self, source: ByteSource, *, most_bytes: int) -> int:
        await checkpoint()
        buffer = memoryview(bytearray(min(CHUNK_BYTES, most_bytes)))
        done = 0
        while done < most_bytes and (count := source.readinto(buffer[: most_bytes - done])):
            self._append(bytes(buffer[:count]))
            done += count
        return done

    async def publish(self) -> FileStat:
        await checkpoint()
        node = self._open_node()
        if self._disk.tree.at(self._hidden) is not node:
            raise FileUnwritable(self._path, "its directory was removed while it was received")
        self._disk.require_place_for_file(self._path, self._target)
        node.content = bytes(self._content)
        self._disk.tree.touch(node)
        self._disk.tree.attach(self._target, self._disk.tree.detach(self._hidden))
        self._end()
        return FileStat(FileKind.FILE, len(node.content), node.modified_ns, node.inode)

    async def discard(self) -> None:
        await checkpoint()
        if self._node is not None:
            if self._disk.tree.at(self._hidden) is self._node:
                self._disk.tree.detach(self._hidden)
            self._end()

    def _append(self, chunk: bytes) -> None:
        node = self._open_node()
        self._disk.require_room(self._path, len(chunk))
        self._content += chunk
        self._digest.update(chunk)
        self._disk.tree.touch(node)

    def _end(self) -> None:
        self._node = None

    def _open_node(self) -> FileNode:
        if self._node is None:
            msg = f"{self._path} was published, discarded or kept before"
            raise RuntimeError(msg)
        return self._node


class InMemoryPartialFile(InMemoryIncomingFile):
    """A `PartialFile`; its directory is locked on the disk for as long as it is open."""

    async def keep(self) -> None:
        await checkpoint()
        if self._node is not None:
            self._node.content = bytes(self._content)
            self._end()

    def _end(self) -> None:
        super()._end()
        self._disk.locked.discard(self._hidden.parent)
        self._disk.remove_if_empty(self._hidden.parent)


class InMemoryOutgoingFile:
    """An `OutgoingFile` over the content as it was when opened."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size_bytes = len(content)

    @property
    def descriptor(self) -> None:
        return None

    async def chunks(self, start: int = 0, count: int | None = None) -> AsyncIterator[bytes]:
        end = len(self._content) if count is None else start + count
        for offset in range(start, end, CHUNK_BYTES):
            await checkpoint()
            yield self._content[offset : min(offset + CHUNK_BYTES, end)]

    async def sha256(self) -> str:
        await checkpoint()
        return hashlib.sha256(self._content).hexdigest()

    async def close(self) -> None:
        await checkpoint()
