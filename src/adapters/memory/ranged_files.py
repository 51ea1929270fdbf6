"""Files put together from ranges in memory, on the disk of an `InMemoryFileSystem`."""

import hashlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import anyio
from anyio.lowlevel import checkpoint

from ...domain.byte_spans import ByteSpan, ByteSpans
from ...domain.errors import FileUnreadable, FileUnwritable
from ...domain.file_names import private_name
from ...domain.ports.filesystem import FileKind, FileStat, RootedPath
from ...domain.ports.ranged_files import Algorithm
from .disk import Disk
from .filesystem import InMemoryFileSystem
from .tree import FileNode

_LOOKS_S = 0.01  # between two looks whether awaited bytes have come
_KEPT = 64  # files remembered before those that have appeared or were removed are forgotten


class InMemoryAssembledFile:
    """An `AssembledFile` that lies under a hidden name beside its target, as on a disk."""

    def __init__(
        self, disk: Disk, path: Path, target: PurePosixPath, hidden: PurePosixPath, kept: "_Kept"
    ) -> None:
        self.size_bytes = kept.size_bytes
        self._disk, self._path, self._target, self._hidden = disk, path, target, hidden
        self._kept = kept
        self._open = True
        kept.busy = True

    @property
    def missing(self) -> tuple[ByteSpan, ...]:
        return self._kept.spans.missing(self.size_bytes)

    def write_at(self, offset: int, chunk: memoryview) -> None:
        if offset + len(chunk) > self.size_bytes:
            raise FileUnwritable(self._path, f"more than the {self.size_bytes} bytes it is to have")
        self._kept.content[offset : offset + len(chunk)] = chunk
        self._kept.spans.add(offset, offset + len(chunk))

    async def digest(self, algorithm: Algorithm, span: ByteSpan) -> bytes:
        await checkpoint()
        while self._kept.spans.reach(span.start) < span.stop:
            if not self._open:
                raise FileUnreadable(self._path, f"it was given up before byte {span.stop} came")
            await anyio.sleep(_LOOKS_S)
        return hashlib.new(
            algorithm, self._kept.content[span.start : span.stop], usedforsecurity=False
        ).digest()

    async def publish(self) -> FileStat:
        await checkpoint()
        if self.missing:
            msg = f"{self._path} lacks {self.missing}"
            raise ValueError(msg)
        node = self._disk.tree.at(self._hidden)
        if node is not self._kept.node:
            raise FileUnwritable(self._path, "its directory was removed while it was received")
        self._disk.require_place_for_file(self._path, self._target)
        self._kept.node.content = bytes(self._kept.content)
        self._disk.tree.touch(self._kept.node)
        self._disk.tree.attach(self._target, self._disk.tree.detach(self._hidden))
        self._end()
        return FileStat(FileKind.FILE, self.size_bytes, self._kept.node.modified_ns, self._kept.node.inode)

    async def settle(self) -> None:
        await checkpoint()

    async def keep(self) -> None:
        await checkpoint()
        self._end()

    async def discard(self) -> None:
        await checkpoint()
        if self._open and self._disk.tree.at(self._hidden) is self._kept.node:
            self._disk.tree.detach(self._hidden)
        self._end()

    def _end(self) -> None:
        if self._open:
            self._kept.busy = False
        self._open = False


class _Kept:
    """What is there of one file; `busy` while somebody assembles it."""

    def __init__(self, node: FileNode, version: str, size_bytes: int) -> None:
        self.node, self.version, self.size_bytes = node, version, size_bytes
        self.content = bytearray(size_bytes)  # a full disk shows at once, as with room taken in advance
        self.spans = ByteSpans()
        self.busy = False
        node.content = self.content


class InMemoryWholeFile:
    """A `WholeFile`: in memory nothing is waited for."""

    def __init__(self, stat: FileStat) -> None:
        self.stat = stat

    async def settle(self) -> None:
        await checkpoint()


class InMemorySourceFile:
    """A `SourceFile` over the content as it was when opened."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size_bytes = len(content)

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        return self._content[offset : offset + size_bytes]

    async def digest(self, algorithm: Algorithm, span: ByteSpan) -> bytes:
        await checkpoint()
        return hashlib.new(algorithm, self._content[span.start : span.stop], usedforsecurity=False).digest()

    async def close(self) -> None:
        await checkpoint()


class InMemoryRangedFiles:
    """`RangedFiles` on the disk of `filesystem`."""

    def __init__(self, filesystem: InMemoryFileSystem) -> None:
        self._disk = filesystem.disk
        self._kept: dict[PurePosixPath, _Kept] = {}

    def worker_died(self) -> None:
        """For simulations: nobody assembles anything any more; what was written stays for a later attempt."""
        for kept in self._kept.values():
            kept.busy = False

    async def assemble(self, place: RootedPath, *, version: str, size_bytes: int) -> InMemoryAssembledFile:
        await checkpoint()
        target = self._disk.target_of(place)
        hidden = target.with_name(private_name(target.name, "ranges"))
        kept = self._found(hidden)
        if kept is not None and kept.busy:
            hidden, kept = target.parent / private_name(target.name, f"{self._disk.unique()}.ranges"), None
        if kept is None or (kept.version, kept.size_bytes) != (version, size_bytes):
            if kept is not None:
                self._disk.tree.detach(hidden)
            self._disk.require_room(place.path, size_bytes)
            kept = _Kept(self._disk.tree.new_file(b"", 0o644), version, size_bytes)
            self._disk.tree.attach(hidden, kept.node)
            if len(self._kept) > _KEPT:
                self._kept = {path: each for path, each in self._kept.items() if self._found(path) is each}
            self._kept[hidden] = kept
        return InMemoryAssembledFile(self._disk, place.path, target, hidden, kept)

    async def put_whole(
        self, place: RootedPath, content: bytes, approve: Callable[[bytes], None]
    ) -> InMemoryWholeFile:
        await checkpoint()
        approve(content)
        target = self._disk.target_of(place)
        self._disk.require_room(place.path, len(content))
        node = self._disk.tree.new_file(content, 0o644)
        self._disk.tree.attach(target, node)
        return InMemoryWholeFile(FileStat(FileKind.FILE, len(content), node.modified_ns, node.inode))

    async def kept(self, place: RootedPath) -> str | None:
        await checkpoint()
        parent = self._disk.beneath(RootedPath(place.root, place.relative.parent))
        kept = self._found(parent / private_name(place.relative.name, "ranges"))
        return kept.version if kept else None

    async def open_source(self, place: RootedPath) -> InMemorySourceFile | None:
        await checkpoint()
        real = self._disk.beneath(place)
        if self._disk.tree.find(real) is None:
            return None
        return InMemorySourceFile(bytes(self._disk.readable_file(place.path, real).content))

    async def real_paths(self, *paths: Path) -> tuple[Path, ...]:
        await checkpoint()
        return tuple(Path(self._disk.tree.real(path)) for path in paths)

    def _found(self, hidden: PurePosixPath) -> _Kept | None:
        kept = self._kept.get(hidden)
        return kept if kept is not None and self._disk.tree.at(hidden) is kept.node else None
