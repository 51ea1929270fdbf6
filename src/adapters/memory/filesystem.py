"""A file system in memory: really stores, really runs full, and knows links, modes and inodes."""

from collections.abc import Hashable
from pathlib import Path, PurePosixPath

from anyio.lowlevel import checkpoint

from ...domain.errors import FileInUse, FileUnreadable, FileUnwritable
from ...domain.file_names import (
    is_private_name,
    name_replaced,
    parse_partial_file_name,
    partial_directory_name,
    partial_file_name,
)
from ...domain.ports.clock import Clock
from ...domain.ports.filesystem import DirectoryEntry, DiskSpace, FileKind, FileStat, PartialStat, RootedPath
from .disk import NEW_DIRECTORY_MODE, Disk
from .file_transfers import InMemoryIncomingFile, InMemoryOutgoingFile, InMemoryPartialFile
from .tree import DirectoryNode, FileNode, LinkNode

UNBOUNDED_BYTES = 1 << 50  # what a file system without a limit says it has


class InMemoryFileSystem:
    """A `FileSystem` that lives in this object; paths are absolute, relative ones start at `/`.

    `capacity_bytes` may be changed at any time; what is received counts from its first byte.
    Modification times go up with every change, by `clock` or else by counting. Owner bits of modes are
    honoured: `chmod` makes a file unreadable or a directory unwritable.
    """

    def __init__(self, *, capacity_bytes: int | None = None, clock: Clock | None = None) -> None:
        self._disk = Disk(capacity_bytes, clock)
        self._tree = self._disk.tree
        self._private: set[Path] = set()  # being built by the living

    # For tests and other fakes: set the scene, look at the outcome.

    @property
    def disk(self) -> Disk:
        return self._disk

    @property
    def capacity_bytes(self) -> int | None:
        return self._disk.capacity_bytes

    @capacity_bytes.setter
    def capacity_bytes(self, value: int | None) -> None:
        self._disk.capacity_bytes = value

    def put(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        """Store a file at once, parents included."""
        self._disk.make_directories(path.parent)
        self._tree.attach(self._tree.entry(path), self._tree.new_file(content, mode))

    def get(self, path: Path) -> bytes | None:
        """The content of a file, links followed; None when there is none."""
        node = self._tree.find(path)
        return bytes(node.content) if isinstance(node, FileNode) else None

    def link(self, path: Path, target: Path) -> None:
        """Make a symlink, parents included; `target` need not exist."""
        self._disk.make_directories(path.parent)
        self._tree.attach(self._tree.entry(path), self._tree.new_link(target))

    def chmod(self, path: Path, mode: int) -> None:
        """Set the mode of a file or directory that exists."""
        node = self._tree.find(path)
        assert node is not None
        node.mode = mode
        self._tree.changes += 1

    def mode_of(self, path: Path) -> int | None:
        """The mode of a file or directory; None when there is none."""
        node = self._tree.find(path)
        return None if node is None else node.mode

    def files(self, below: Path = Path("/")) -> list[Path]:
        """Every path below `below` that is no directory, hidden temporaries included, in walk order."""
        found = self._tree.walk(self._tree.real(below))
        return [Path(path) for path, node in found if not isinstance(node, DirectoryNode)]

    # The port.

    async def stat(self, path: Path) -> FileStat | None:
        await checkpoint()
        return _stat(self._tree.find(path))

    async def list_directory(self, path: Path) -> tuple[DirectoryEntry, ...]:
        await checkpoint()
        real = self._tree.real(path)
        entries = self._disk.readable_directory(path, real).entries
        return tuple(
            DirectoryEntry(name, _kind_of(self._tree.find(real / name)), isinstance(node, LinkNode))
            for name, node in sorted(entries.items())
        )

    async def fingerprint(self, path: Path, *, files: tuple[str, ...], fresh: bool = False) -> Hashable:
        real = self._tree.real(path)
        if self._tree.at(real) is None:
            return None
        del files, fresh  # what changed where is not told apart here, and everything shows at once
        self._disk.readable_directory(path, real)
        return self._tree.changes

    async def directory_inode(self, path: Path) -> int:
        node = self._tree.find(path)
        return node.inode if isinstance(node, DirectoryNode) else 0

    async def make_directory(self, path: Path, *, mode: int = 0o750) -> None:
        await checkpoint()
        self._disk.make_directories(path, mode)

    async def read(self, path: Path, *, limit_bytes: int) -> bytes:
        await checkpoint()
        content = self._disk.readable_file(path, self._tree.real(path)).content
        if len(content) > limit_bytes:
            raise FileUnreadable(path, f"larger than the {limit_bytes} bytes it may have")
        return bytes(content)

    async def write(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        await checkpoint()
        entry = self._tree.entry(path)
        self._disk.require_place_for_file(path, entry)
        self._disk.require_room(path, len(content))
        self._tree.attach(entry, self._tree.new_file(content, mode))

    async def private_directory(self, beside: Path) -> Path:
        await checkpoint()
        path = beside.with_name(self._disk.hidden_name(beside.name))
        entry = self._tree.entry(path)
        self._disk.require_writable_directory(path, entry.parent)
        self._tree.attach(entry, self._tree.new_directory(NEW_DIRECTORY_MODE))
        self._private.add(path)
        return path

    async def sweep_private(self, directory: Path) -> tuple[Path, ...]:
        await checkpoint()
        if self._tree.find(directory) is None:
            return ()
        entries = self._disk.readable_directory(directory, self._tree.real(directory)).entries
        names = [name for name, node in sorted(entries.items()) if isinstance(node, DirectoryNode)]
        swept = []
        for name in names:
            path, target = directory / name, name_replaced(name)
            if not (target or is_private_name(name)) or path in self._private:
                continue
            node = self._tree.detach(self._tree.entry(path))
            if target and target not in entries:
                self._tree.attach(self._tree.entry(directory / target), node)
            swept.append(path)
        return tuple(swept)

    def forget_private(self) -> None:
        """As if the process that made the private directories had ended."""
        self._private.clear()

    async def replace_directory(self, new: Path, target: Path) -> None:
        await checkpoint()
        source, place = self._tree.entry(new), self._tree.entry(target)
        if not isinstance(self._tree.at(source), DirectoryNode):
            raise FileUnwritable(target, f"{new} is no directory")
        if place.is_relative_to(source):
            raise FileUnwritable(target, f"it lies in {new}")
        for changed in (source.parent, place.parent):
            self._disk.require_writable_directory(target, changed)
        self._tree.attach(place, self._tree.detach(source))
        self._private.discard(new)

    async def remove_tree(self, path: Path) -> None:
        await checkpoint()
        entry = self._tree.entry(path)
        if self._tree.at(entry) is None:
            return
        inside = [(entry, self._tree.at(entry)), *self._tree.walk(entry)]
        for emptied in {entry.parent, *(real for real, node in inside if _has_entries(node))}:
            self._disk.require_writable_directory(path, emptied)
        self._tree.detach(entry)

    async def space(self, path: Path) -> DiskSpace | None:
        await checkpoint()
        del path  # one file system holds everything
        total_bytes = UNBOUNDED_BYTES if self.capacity_bytes is None else self.capacity_bytes
        return DiskSpace(total_bytes, max(0, total_bytes - self._disk.used_bytes))

    async def locate(self, place: RootedPath) -> FileStat | None:
        await checkpoint()
        return _stat(self._tree.find(self._disk.beneath(place)))

    async def open_incoming(self, place: RootedPath, *, mode: int = 0o644) -> InMemoryIncomingFile:
        await checkpoint()
        target = self._disk.target_of(place)
        hidden = target.with_name(self._disk.hidden_name(target.name))
        return InMemoryIncomingFile(self._disk, place.path, target, hidden, mode, b"")

    async def write_note(self, place: RootedPath, content: bytes, *, mode: int = 0o644) -> None:
        self._disk.beneath(place)
        await self.write(place.path, content, mode=mode)

    async def remove_file(self, place: RootedPath) -> None:
        await checkpoint()
        parent = self._disk.beneath(RootedPath(place.root, place.relative.parent))
        entry = parent / place.relative.name
        if self._tree.at(entry) is None:
            return
        if isinstance(self._tree.at(entry), DirectoryNode):
            raise FileUnwritable(place.path, "is a directory")
        self._disk.require_writable_directory(place.path, parent)
        self._tree.detach(entry)

    async def share(self, place: RootedPath, elsewhere: RootedPath) -> None:
        await checkpoint()
        node = self._tree.at(self._disk.beneath(place))
        if not isinstance(node, FileNode):
            raise FileUnwritable(elsewhere.path, "what it should share is no regular file")
        parent = self._disk.beneath(RootedPath(elsewhere.root, elsewhere.relative.parent))
        entry = parent / elsewhere.relative.name
        if self._tree.at(entry) is not None:
            return
        self._disk.make_directories(Path(parent))
        self._disk.require_writable_directory(elsewhere.path, parent)
        self._tree.attach(entry, node)

    async def find_partial(self, place: RootedPath) -> PartialStat | None:
        await checkpoint()
        holder = self._partial_directory(place)
        directory = None if holder is None else self._tree.at(holder)
        for name, node in directory.entries.items() if isinstance(directory, DirectoryNode) else ():
            parsed = parse_partial_file_name(name)
            if parsed is not None and isinstance(node, FileNode):
                return PartialStat(*parsed, len(node.content))
        return None

    async def open_partial(
        self, place: RootedPath, *, sha256: str, total_bytes: int, mode: int = 0o644
    ) -> InMemoryPartialFile:
        await checkpoint()
        target = self._disk.target_of(place)
        holder = target.with_name(partial_directory_name(target.name))
        if holder in self._disk.locked:
            raise FileInUse(place.path)
        self._disk.make_directories(Path(holder))
        hidden = holder / partial_file_name(sha256, total_bytes)
        kept = self._tree.at(hidden)
        for name in list(self._disk.readable_directory(place.path, holder).entries):
            self._tree.detach(holder / name)
        self._disk.locked.add(holder)
        content = bytes(kept.content) if isinstance(kept, FileNode) else b""
        return InMemoryPartialFile(self._disk, place.path, target, hidden, mode, content)

    async def drop_partial(self, place: RootedPath) -> None:
        await checkpoint()
        holder = self._partial_directory(place)
        if holder is None or self._tree.at(holder) is None:
            return
        if holder in self._disk.locked:
            raise FileInUse(place.path)
        self._tree.detach(holder)

    async def open_outgoing(self, place: RootedPath) -> InMemoryOutgoingFile | None:
        await checkpoint()
        real = self._disk.beneath(place)
        if self._tree.find(real) is None:
            return None
        return InMemoryOutgoingFile(bytes(self._disk.readable_file(place.path, real).content))

    async def create_empty(self, directory: Path, *, prefix: str, suffix: str) -> Path:
        await checkpoint()
        path = directory / f"{prefix}{self._disk.unique()}{suffix}"
        entry = self._tree.entry(path)
        self._disk.require_place_for_file(path, entry)
        self._tree.attach(entry, self._tree.new_file(b"", 0o600))
        return path

    async def walk_files(self, place: RootedPath) -> tuple[PurePosixPath, ...] | None:
        await checkpoint()
        real = self._disk.beneath(place)
        if not isinstance(self._tree.find(real), DirectoryNode):
            return None
        found = self._tree.walk(real)
        return tuple(path.relative_to(real) for path, node in found if not isinstance(node, DirectoryNode))

    def _partial_directory(self, place: RootedPath) -> PurePosixPath | None:
        """Where a partial file of `place` lies if there is one; None when there can be none."""
        self._disk.beneath(place)
        if not place.relative.name:
            return None
        parent = self._disk.beneath(RootedPath(place.root, place.relative.parent))
        return parent / partial_directory_name(place.relative.name)


def _kind_of(node: FileNode | DirectoryNode | None) -> FileKind:
    if isinstance(node, FileNode):
        return FileKind.FILE
    return FileKind.OTHER if node is None else FileKind.DIRECTORY


def _has_entries(node: object) -> bool:
    return isinstance(node, DirectoryNode) and bool(node.entries)


def _stat(node: FileNode | DirectoryNode | None) -> FileStat | None:
    if node is None:
        return None
    size_bytes = len(node.content) if isinstance(node, FileNode) else 0
    return FileStat(_kind_of(node), size_bytes, node.modified_ns, node.inode)
