"""The tree behind the in-memory file system: directories, files, symlinks, inodes and a counting clock."""

from dataclasses import dataclass, field
from itertools import count
from pathlib import PurePath, PurePosixPath

from ...domain.ports.clock import Clock

ROOT = PurePosixPath("/")
LINKS_FOLLOWED = 40  # as Linux: more is taken for a circle


@dataclass
class FileNode:
    content: bytes | bytearray  # a bytearray while the file is being received
    mode: int
    inode: int
    modified_ns: int


@dataclass
class LinkNode:
    target: PurePosixPath
    inode: int
    modified_ns: int


@dataclass
class DirectoryNode:
    mode: int
    inode: int
    modified_ns: int
    entries: dict[str, "Node"] = field(default_factory=dict)


Node = FileNode | LinkNode | DirectoryNode


class Tree:
    """Nodes by absolute path. Methods that take a *real* path expect one without links (see `real`)."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._inodes = count(2)  # as on a disk, where the root is number 2
        self._clock = clock
        self._latest_ns = 0
        self.changes = 0  # to names, contents and modes, since it was made
        self.root = self.new_directory(0o755)

    def _tick(self) -> int:
        """A time later than any before; by the clock, if there is one."""
        now_ns = 0 if self._clock is None else int(self._clock.now().timestamp() * 1e9)
        self._latest_ns = max(self._latest_ns + 1, now_ns)
        return self._latest_ns

    def new_file(self, content: bytes, mode: int) -> FileNode:
        return FileNode(content, mode, next(self._inodes), self._tick())

    def new_directory(self, mode: int) -> DirectoryNode:
        return DirectoryNode(mode, next(self._inodes), self._tick())

    def new_link(self, target: PurePath) -> LinkNode:
        return LinkNode(PurePosixPath(target), next(self._inodes), self._tick())

    def real(self, path: PurePath) -> PurePosixPath:
        """`path` with every link followed; what is missing, or behind a dangling link, stays by name.

        A circle of links ends at one of them.
        """
        if self._is_plain(path):
            return PurePosixPath(path)
        reached, links = ROOT, 0
        waiting = list(reversed((ROOT / path).parts[1:]))
        while waiting:
            part = waiting.pop()
            if part == "..":
                reached = reached.parent
                continue
            node = self.at(reached / part)
            if not isinstance(node, LinkNode):
                reached /= part
                continue
            links += 1
            if links > LINKS_FOLLOWED:
                return reached / part
            if node.target.is_absolute():
                reached = ROOT
            waiting.extend(part for part in reversed(node.target.parts) if part != "/")
        return reached

    def _is_plain(self, path: PurePath) -> bool:
        """Whether `path` is absolute and meets no link and no `..`: then it is real as it stands."""
        node: Node | None = self.root
        for part in path.parts[1:]:
            if part == "..":
                return False
            node = node.entries.get(part) if isinstance(node, DirectoryNode) else None
            if isinstance(node, LinkNode):
                return False
        return path.is_absolute()

    def at(self, real: PurePosixPath) -> Node | None:
        """What stands at the real path, itself possibly a link; None when nothing does."""
        node: Node = self.root
        for part in real.parts[1:]:
            if not isinstance(node, DirectoryNode) or part not in node.entries:
                return None
            node = node.entries[part]
        return node

    def find(self, path: PurePath) -> FileNode | DirectoryNode | None:
        """What `path` names, links followed; None when that is nothing."""
        node = self.at(self.real(path))
        return None if isinstance(node, LinkNode) else node

    def entry(self, path: PurePath) -> PurePosixPath:
        """The real path of the name `path`, the links before its last part followed."""
        return self.real(path.parent) / path.name

    def attach(self, real: PurePosixPath, node: Node) -> None:
        """Put `node` at the real path, in place of what was there; its directory exists."""
        directory = self._directory_of(real)
        self.changes += 1
        directory.entries[real.name] = node
        directory.modified_ns = self._tick()

    def detach(self, real: PurePosixPath) -> Node:
        """Take what stands at the real path, which exists, out of the tree."""
        directory = self._directory_of(real)
        self.changes += 1
        directory.modified_ns = self._tick()
        return directory.entries.pop(real.name)

    def _directory_of(self, real: PurePosixPath) -> DirectoryNode:
        directory = self.at(real.parent)
        assert isinstance(directory, DirectoryNode)
        return directory

    def touch(self, node: FileNode) -> None:
        """Date `node` now."""
        self.changes += 1
        node.modified_ns = self._tick()

    def walk(self, top: PurePosixPath) -> list[tuple[PurePosixPath, Node]]:
        """Everything below the real path `top` with its real path, names of one directory in order."""
        node = self.at(top)
        if not isinstance(node, DirectoryNode):
            return []
        found: list[tuple[PurePosixPath, Node]] = []
        waiting = [(top / name, child) for name, child in sorted(node.entries.items(), reverse=True)]
        while waiting:
            path, child = waiting.pop()
            found.append((path, child))
            if isinstance(child, DirectoryNode):
                entries = sorted(child.entries.items(), reverse=True)
                waiting.extend((path / name, below) for name, below in entries)
        return found
