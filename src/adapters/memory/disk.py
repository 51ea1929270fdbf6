"""What can go wrong on the in-memory file system: it is full, something stands in the way, a mode forbids."""

from itertools import count
from pathlib import Path, PurePosixPath

from ...domain.errors import FileUnreadable, FileUnwritable, NoSpace, PathEscapes
from ...domain.file_names import NAME_LIMIT_BYTES, private_name
from ...domain.ports.clock import Clock
from ...domain.ports.filesystem import RootedPath
from .tree import ROOT, DirectoryNode, FileNode, Tree

OWNER_READS, OWNER_WRITES = 0o400, 0o200
NEW_DIRECTORY_MODE = 0o750


class Disk:
    """A `Tree` with a capacity, whose changes fail as a disk's do. `path` names the culprit in errors."""

    def __init__(self, capacity_bytes: int | None, clock: Clock | None = None) -> None:
        self.tree = Tree(clock)
        self.capacity_bytes = capacity_bytes
        self.locked: set[PurePosixPath] = set()  # directories of partial files that are being written
        self._numbers = count(1)
        self._counted_at = -1  # `changes` of the tree when `_used_bytes` was right
        self._used_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Bytes of all files, those being received included."""
        if self._counted_at != self.tree.changes:
            self._counted_at = self.tree.changes
            nodes = (node for _, node in self.tree.walk(ROOT))
            self._used_bytes = sum(len(node.content) for node in nodes if isinstance(node, FileNode))
        return self._used_bytes

    def beneath(self, place: RootedPath) -> PurePosixPath:
        """The real path of `place`.

        Raises:
            PathEscapes: it is not below the root.
        """
        root, real = self.tree.real(place.root), self.tree.real(place.path)
        if not real.is_relative_to(root):
            raise PathEscapes(str(place.path), place.root)
        return real

    def unique(self) -> str:
        """A number not given before; where the real thing is random, this one is repeatable."""
        return str(next(self._numbers))

    def hidden_name(self, name: str) -> str:
        """A private name for `name`, never given before."""
        return private_name(name, self.unique())

    def readable_file(self, path: Path, real: PurePosixPath) -> FileNode:
        node = self.tree.find(real)
        if node is None:
            raise FileUnreadable(path, "no such file")
        if isinstance(node, DirectoryNode):
            raise FileUnreadable(path, "is a directory")
        if not node.mode & OWNER_READS:
            raise FileUnreadable(path, "permission denied")
        return node

    def readable_directory(self, path: Path, real: PurePosixPath) -> DirectoryNode:
        node = self.tree.find(real)
        if not isinstance(node, DirectoryNode):
            raise FileUnreadable(path, "no such directory" if node is None else "not a directory")
        if not node.mode & OWNER_READS:
            raise FileUnreadable(path, "permission denied")
        return node

    def require_place_for_file(self, path: Path, entry: PurePosixPath) -> None:
        """Raise FileUnwritable unless a file can be made, or replaced, at the real path `entry`."""
        _require_name(path, entry.name)
        self.require_writable_directory(path, entry.parent)
        if isinstance(self.tree.find(entry), DirectoryNode):
            raise FileUnwritable(path, "a directory stands in the way")

    def require_writable_directory(self, path: Path, real: PurePosixPath) -> None:
        """Raise FileUnwritable unless entries of the directory can be made and removed."""
        directory = self.tree.at(real)
        if not isinstance(directory, DirectoryNode):
            raise FileUnwritable(path, "no such directory" if directory is None else "not a directory")
        if not directory.mode & OWNER_WRITES:
            raise FileUnwritable(path, "permission denied")

    def require_room(self, path: Path, size_bytes: int) -> None:
        """Raise NoSpace unless `size_bytes` more fit."""
        if self.capacity_bytes is not None and self.used_bytes + size_bytes > self.capacity_bytes:
            raise NoSpace(path, f"{self.capacity_bytes} bytes in all; free some and try again")

    def remove_if_empty(self, real: PurePosixPath) -> None:
        """Remove the directory at the real path if nothing is in it."""
        node = self.tree.at(real)
        if isinstance(node, DirectoryNode) and not node.entries:
            self.tree.detach(real)

    def target_of(self, place: RootedPath) -> PurePosixPath:
        """The real path at which a file for `place` can come in, its directory made."""
        self.beneath(place)
        if not place.relative.name:
            raise FileUnwritable(place.path, "is a directory")
        parent = self.beneath(RootedPath(place.root, place.relative.parent))
        self.make_directories(Path(parent))
        target = parent / place.relative.name
        self.require_place_for_file(place.path, target)
        return target

    def make_directories(self, path: Path, mode: int = NEW_DIRECTORY_MODE) -> None:
        """Create `path` and its missing parents."""
        for directory in (*reversed(path.parents), path):
            if isinstance(self.tree.find(directory), DirectoryNode):
                continue
            entry = self.tree.entry(directory)
            if self.tree.at(entry) is not None:
                raise FileUnwritable(path, f"{directory} is not a directory")
            _require_name(path, entry.name)
            self.require_writable_directory(path, entry.parent)
            self.tree.attach(entry, self.tree.new_directory(mode))


def _require_name(path: Path, name: str) -> None:
    try:
        size_bytes = len(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise FileUnwritable(path, "a name that cannot be encoded") from error
    if "\0" in name or size_bytes > NAME_LIMIT_BYTES:
        raise FileUnwritable(path, "no file can have such a name")
