"""The file system. The domain decides names, limits and hashes; bytes stay with the adapters (D13)."""

from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Protocol


class FileKind(Enum):
    FILE = "file"
    DIRECTORY = "directory"
    OTHER = "other"  # a symlink that leads nowhere, a device, a socket


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a path names, symlinks followed. `inode` identifies a directory across renames."""

    kind: FileKind
    size_bytes: int
    modified_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """One name in a directory; `is_link` entries have the kind of what they point to."""

    name: str
    kind: FileKind
    is_link: bool


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Size of the file system that holds a path, and what a non-root process may still use. Bytes."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True, slots=True)
class RootedPath:
    """A place below `root`: `relative` has no `..`, no empty parts and is never absolute."""

    root: Path
    relative: PurePosixPath

    @property
    def path(self) -> Path:
        """The joined path, symlinks not resolved: what the frontend gets as `local_path`."""
        return self.root / self.relative


@dataclass(frozen=True, slots=True)
class PartialStat:
    """What came so far of a file that is expected to hash to `sha256` (empty: not known) once it is whole."""

    sha256: str
    total_bytes: int
    size_bytes: int


class ByteSource(Protocol):
    """Bytes from outside, a socket or an answer's body, read from a worker thread."""

    def readinto(self, buffer: memoryview) -> int | None:
        """Fill the beginning of `buffer`; how many bytes came, 0 at the end, None when there are none now."""


class IncomingFile(Protocol):
    """A file being written under a private name; nobody sees it before `publish`.

    Exactly one of `publish` and `discard` ends it; after a crash the private file is left for a sweep.
    """

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""

    async def sha256(self) -> str:
        """Hash of the bytes written so far, 64 lower-case hex digits; the event loop runs on meanwhile.

        Raises:
            NoSpace, FileUnwritable: the bytes did not fit.
        """

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`.

        Raises:
            NoSpace, FileUnwritable: the bytes did not fit; discard.
        """

    async def fill(self, source: ByteSource, *, most_bytes: int) -> int:
        """Append what `source` gives until it pauses or ends, at most `most_bytes`; how many bytes.

        What `source` raises passes through; the bytes before it are appended.

        Raises:
            NoSpace, FileUnwritable: the bytes did not fit; discard.
        """

    @property
    def has_leftovers(self) -> bool:
        """Whether, when it was opened, there were parts of an earlier upload beside its place: a partial
        file, or a Go worker's note of one.
        """

    async def publish(self) -> FileStat:
        """Make the file appear whole under its target name (fsync, rename, fsync of the directory).

        An older file is replaced in the same step: a reader has the old or the new one, never a mix. Returns
        what the place names then.

        Raises:
            NoSpace, FileUnwritable: the target is as it was.
        """

    async def discard(self) -> None:
        """Drop what was written; idempotent, also after `publish` (then nothing happens)."""


class PartialFile(IncomingFile, Protocol):
    """An incoming file of which `keep` leaves what came, for a later attempt, also by another process.

    Exactly one of `publish`, `discard` and `keep` ends it; after a crash it is as if kept. `size_bytes` and
    `sha256` count what earlier attempts wrote.
    """

    async def keep(self) -> None:
        """End this attempt and leave what was written; idempotent, also after another end.

        Raises:
            NoSpace, FileUnwritable: the last bytes did not fit; those before them are left.
        """


class OutgoingFile(Protocol):
    """A published file opened for reading; it stays readable while open, whatever happens to its name."""

    @property
    def size_bytes(self) -> int:
        """Size when it was opened."""

    @property
    def descriptor(self) -> int | None:
        """What the system can send the content from without us, while open; None where there is no such."""

    def chunks(self, start: int = 0, count: int | None = None) -> AsyncIterator[bytes]:
        """`count` bytes from byte `start` on, None for all, in chunks of up to 1 MiB.

        Raises:
            FileUnreadable: the file became shorter than it was when opened.
        """

    async def sha256(self) -> str:
        """The hash of the whole content, 64 lower-case hex digits; the event loop runs on meanwhile.

        Raises:
            FileUnreadable: the file became shorter than it was when opened.
        """

    async def close(self) -> None:
        """Let go of the file; idempotent."""


class FileSystem(Protocol):
    """Files and directories. Whatever is written appears whole or not at all (D12).

    Methods that take a `RootedPath` never touch anything outside its root, whatever symlinks lie
    inside; a root that is itself a symlink is fine.
    """

    async def stat(self, path: Path) -> FileStat | None:
        """What `path` names; None when nothing is there."""

    async def list_directory(self, path: Path) -> tuple[DirectoryEntry, ...]:
        """The entries of a directory, sorted by name.

        Raises:
            FileUnreadable: it is missing, no directory, or not ours to read.
        """

    async def fingerprint(self, path: Path, *, files: tuple[str, ...], fresh: bool = False) -> Hashable:
        """A value that is another one after any change to the entries of directory `path`, or to what lies
        under one of the names `files` in a directory among them. Hidden entries (a leading dot) need not
        count: what is in the making stands there.

        Changes made through `write`, `remove_tree` and `replace_directory` show at once, those by others
        within a twentieth of a second, in which asking again costs nothing, or with `fresh` at once as
        well. None for a missing directory.

        Raises:
            FileUnreadable: it is not ours to read.
        """

    async def directory_inode(self, path: Path) -> int:
        """Which directory stands at `path`, 0 when none does; as fresh as `fingerprint`.

        Raises:
            FileUnreadable: it is not ours to look at.
        """

    async def make_directory(self, path: Path, *, mode: int = 0o750) -> None:
        """Create `path` and its missing parents; one that exists is fine.

        Raises:
            FileUnwritable: it cannot be created, or a file stands in the way.
        """

    async def read(self, path: Path, *, limit_bytes: int) -> bytes:
        """The content of a small file.

        Raises:
            FileUnreadable: missing, no regular file, larger than `limit_bytes`, or not ours to read.
        """

    async def write(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        """Write a small file whole: private temporary beside it, fsync, rename.

        Raises:
            NoSpace, FileUnwritable: the old file is untouched.
        """

    async def private_directory(self, beside: Path) -> Path:
        """A fresh empty directory (0750) in `beside.parent`, its name hidden (leading dot) and unique.

        For building a tree that `replace_directory` then puts in place.

        Raises:
            NoSpace, FileUnwritable: it cannot be created.
        """

    async def sweep_private(self, directory: Path) -> tuple[Path, ...]:
        """Remove what `private_directory` made in `directory` for a process that has ended since.

        An old tree that lost its place to no new one, because its process ended in between, is put back.
        What a living process builds, in this worker or another, stays; a missing `directory` has nothing.
        Returns what was removed or put back, in the order of their names.

        Raises:
            FileUnreadable, FileUnwritable: something could not be looked at, or not be removed.
        """

    async def replace_directory(self, new: Path, target: Path) -> None:
        """Put the tree `new` in place of `target` by renames; what was there is removed afterwards.

        The tree is synced first. Where the system can exchange two names, there is no moment without
        either; if the last rename fails the old tree is put back.

        Raises:
            NoSpace, FileUnwritable: `target` is as it was.
        """

    async def remove_tree(self, path: Path) -> None:
        """Remove a file, a link (not what it points to) or a whole directory; a missing one is fine.

        Raises:
            FileUnwritable: something in it could not be removed.
        """

    async def space(self, path: Path) -> DiskSpace | None:
        """Space of the file system holding the nearest existing ancestor of `path`; None if unreadable."""

    async def locate(self, place: RootedPath) -> FileStat | None:
        """What `place` names; None when nothing is there.

        Raises:
            PathEscapes: a symlink leads out of the root.
        """

    async def open_incoming(self, place: RootedPath, *, mode: int = 0o644) -> IncomingFile:
        """Start writing a file that will replace `place`; missing parents are created (0750).

        Raises:
            PathEscapes: a symlink leads out of the root.
            NoSpace, FileUnwritable: no file can be made there (a directory stands in the way).
        """

    async def write_note(self, place: RootedPath, content: bytes, *, mode: int = 0o644) -> None:
        """Write a small file whole that can be made again: a power loss may leave it empty, never torn.

        Raises:
            PathEscapes: a symlink leads out of the root.
            NoSpace, FileUnwritable: the old file is untouched.
        """

    async def remove_file(self, place: RootedPath) -> None:
        """Remove the file or link (not what it points to) at `place`; a missing one is fine.

        Raises:
            PathEscapes: a symlink leads out of the root.
            FileUnwritable: it cannot be removed, or is a directory.
        """

    async def share(self, place: RootedPath, elsewhere: RootedPath) -> None:
        """Make the regular file at `place` appear at `elsewhere` as well, without copying it.

        Either name may then be replaced or removed without the other noticing. What is at `elsewhere`
        already stays. Missing parents are created (0750).

        Raises:
            PathEscapes: a symlink leads out of a root.
            FileUnwritable: `place` is no regular file, or the file system cannot do it.
        """

    async def find_partial(self, place: RootedPath) -> PartialStat | None:
        """What earlier attempts left of `place`, or a running one wrote; None when there is nothing.

        Raises:
            PathEscapes: a symlink leads out of the root.
            FileUnreadable: it is not ours to read.
        """

    async def open_partial(
        self, place: RootedPath, *, sha256: str, total_bytes: int, mode: int = 0o644
    ) -> PartialFile:
        """Go on with, or start, the partial file of `place` that will have this hash and size.

        A place has one partial file: one of another hash or size is dropped. Missing parents are created
        (0750). An empty `sha256` is not known.

        Raises:
            PathEscapes: a symlink leads out of the root.
            FileInUse: it is being written, by us or another process.
            NoSpace, FileUnwritable: no file can be made there (a directory stands in the way).
        """

    async def drop_partial(self, place: RootedPath) -> None:
        """Remove the partial file of `place`; a missing one is fine.

        Raises:
            PathEscapes: a symlink leads out of the root.
            FileInUse: it is being written.
            FileUnwritable: it cannot be removed.
        """

    async def open_outgoing(self, place: RootedPath) -> OutgoingFile | None:
        """Open a regular file for reading; None when nothing is there.

        Raises:
            PathEscapes: a symlink leads out of the root.
            FileUnreadable: a directory, or not ours to read.
        """

    async def create_empty(self, directory: Path, *, prefix: str, suffix: str) -> Path:
        """Create an empty file (0600) of a unique name `prefix<random>suffix` and return its path.

        Raises:
            NoSpace, FileUnwritable: it cannot be created.
        """

    async def walk_files(self, place: RootedPath) -> tuple[PurePosixPath, ...] | None:
        """Every file below the directory `place`, relative to it, in lexical walk order; links are not
        followed but listed. None when it is missing or no directory.

        Raises:
            PathEscapes: a symlink leads out of the root.
        """
