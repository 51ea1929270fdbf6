"""The machine's own file system. Calls that block run in worker threads."""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from anyio import to_thread

from ...domain.errors import FileUnreadable
from ...domain.file_names import private_name
from ...domain.ports.filesystem import DirectoryEntry, DiskSpace, FileKind, FileStat, PartialStat, RootedPath
from . import beneath, directories, partials, trees
from .failures import means_absent, reading, writing
from .fingerprints import Fingerprints
from .incoming import LocalIncomingFile, write_note
from .outgoing import LocalOutgoingFile
from .partials import LocalPartialFile, PartialDigests
from .private_directories import PrivateDirectories, sweep

R = TypeVar("R")


class LocalFileSystem:
    """A `FileSystem` on this machine. Modes are less the process's umask: that is the operator's say."""

    def __init__(self) -> None:
        self._private = PrivateDirectories()
        self._digests = PartialDigests()
        self._fingerprints = Fingerprints()

    async def stat(self, path: Path) -> FileStat | None:
        return await _in_thread(_found, path, partial(os.stat, path))

    async def list_directory(self, path: Path) -> tuple[DirectoryEntry, ...]:
        return await _in_thread(_list_directory, path)

    async def fingerprint(self, path: Path, *, files: tuple[str, ...], fresh: bool = False) -> Hashable:
        if fresh:
            self._fingerprints.forget()
        return await self._fingerprints.of(path, files)

    async def directory_inode(self, path: Path) -> int:
        return await self._fingerprints.inode_of(path)

    async def make_directory(self, path: Path, *, mode: int = 0o750) -> None:
        await _in_thread(_make_directory, path, mode)

    async def read(self, path: Path, *, limit_bytes: int) -> bytes:
        return await _in_thread(_read, path, limit_bytes)

    async def write(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        await self._change(_write, path, content, mode)

    async def private_directory(self, beside: Path) -> Path:
        return await _in_thread(self._private.make, beside)

    async def sweep_private(self, directory: Path) -> tuple[Path, ...]:
        return await _in_thread(sweep, directory)

    async def replace_directory(self, new: Path, target: Path) -> None:
        await self._change(trees.replace_directory, new, target)
        self._private.let_go(new)

    async def remove_tree(self, path: Path) -> None:
        await self._change(trees.remove_tree, path)
        self._private.let_go(path)

    async def space(self, path: Path) -> DiskSpace | None:
        return await _in_thread(_space, path)

    async def locate(self, place: RootedPath) -> FileStat | None:
        return await _in_thread(_found, place.path, partial(beneath.look, place))

    async def open_incoming(self, place: RootedPath, *, mode: int = 0o644) -> LocalIncomingFile:
        return await _in_thread(LocalIncomingFile, place, mode)

    async def write_note(self, place: RootedPath, content: bytes, *, mode: int = 0o644) -> None:
        await _in_thread(write_note, place, content, mode)

    async def remove_file(self, place: RootedPath) -> None:
        await _in_thread(_remove_file, place)

    async def share(self, place: RootedPath, elsewhere: RootedPath) -> None:
        await _in_thread(_share, place, elsewhere)

    async def find_partial(self, place: RootedPath) -> PartialStat | None:
        return await _in_thread(_find_partial, place)

    async def open_partial(
        self, place: RootedPath, *, sha256: str, total_bytes: int, mode: int = 0o644
    ) -> LocalPartialFile:
        return await _in_thread(LocalPartialFile, place, sha256, total_bytes, mode, self._digests)

    async def drop_partial(self, place: RootedPath) -> None:
        await _in_thread(_drop_partial, place)

    async def open_outgoing(self, place: RootedPath) -> LocalOutgoingFile | None:
        return await _in_thread(_open_outgoing, place)

    async def create_empty(self, directory: Path, *, prefix: str, suffix: str) -> Path:
        return await _in_thread(_create_empty, directory, prefix, suffix)

    async def walk_files(self, place: RootedPath) -> tuple[PurePosixPath, ...] | None:
        return await _in_thread(_walk_files, place)

    async def _change(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            await _in_thread(work, *arguments)
        finally:
            self._fingerprints.forget()


async def _in_thread(work: Callable[..., R], *arguments: object) -> R:
    """Run `work` to its end even when cancelled, so that what it opened is never lost on the way."""
    return await to_thread.run_sync(partial(work, *arguments))


def _found(path: Path, look: Callable[[], os.stat_result]) -> FileStat | None:
    with reading(path):
        try:
            status = look()
        except (OSError, ValueError) as error:
            if means_absent(error):
                return None
            raise
    if stat.S_ISLNK(status.st_mode):
        return None  # still a link after resolving: it leads nowhere, or it is new
    return FileStat(_kind_of(status), status.st_size, status.st_mtime_ns, status.st_ino)


def _kind_of(status: os.stat_result) -> FileKind:
    if stat.S_ISREG(status.st_mode):
        return FileKind.FILE
    return FileKind.DIRECTORY if stat.S_ISDIR(status.st_mode) else FileKind.OTHER


def _list_directory(path: Path) -> tuple[DirectoryEntry, ...]:
    with reading(path), os.scandir(path) as entries:
        listed = [DirectoryEntry(entry.name, _entry_kind(entry), entry.is_symlink()) for entry in entries]
    return tuple(sorted(listed, key=lambda entry: os.fsencode(entry.name)))


def _entry_kind(entry: os.DirEntry[str]) -> FileKind:
    try:
        return _kind_of(entry.stat())
    except OSError:  # a link that leads nowhere, or into a circle
        return FileKind.OTHER


def _make_directory(path: Path, mode: int) -> None:
    with writing(path):
        directories.make_directories(path, mode)


def _read(path: Path, limit_bytes: int) -> bytes:
    with reading(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            beneath.require_regular(os.fstat(descriptor))
            content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise FileUnreadable(path, f"larger than the {limit_bytes} bytes it may have")
    return content


def _write(path: Path, content: bytes, mode: int) -> None:
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        temporary = path.with_name(private_name(path.name, secrets.token_hex(8)))
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            temporary.rename(path)
        except BaseException:
            temporary.unlink()
            raise
        directories.sync_directory(path.parent)


def _space(path: Path) -> DiskSpace | None:
    for ancestor in (path, *path.parents):
        try:
            status = os.statvfs(ancestor)
        except (OSError, ValueError) as error:
            if not means_absent(error):
                return None
        else:
            unit = status.f_frsize
            return DiskSpace(status.f_blocks * unit, status.f_bavail * unit)
    return None


def _remove_file(place: RootedPath) -> None:
    with writing(place.path):
        if not place.relative.name:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        try:
            directory = beneath.resolve(RootedPath(place.root, place.relative.parent))
            with beneath.opened_directory(directory) as parent:
                os.unlink(place.relative.name, dir_fd=parent)
        except (OSError, ValueError) as error:
            if not means_absent(error):
                raise


def _share(place: RootedPath, elsewhere: RootedPath) -> None:
    with writing(elsewhere.path):
        source = beneath.resolve(place)
        beneath.require_regular(beneath.lstat(source))
        directory, name = beneath.resolve_entry(elsewhere)
        parent = beneath.open_directory(directory, create=True)
        try:
            with beneath.opened_directory(beneath.Resolved(source.root, source.parts[:-1])) as holder:
                os.link(source.parts[-1], name, src_dir_fd=holder, dst_dir_fd=parent, follow_symlinks=False)
            directories.sync_open_directory(parent)
        except FileExistsError:
            pass  # what is there stays
        finally:
            os.close(parent)


def _find_partial(place: RootedPath) -> PartialStat | None:
    with reading(place.path):
        try:
            return partials.find_partial(place)
        except (OSError, ValueError) as error:
            if means_absent(error) or isinstance(error, IsADirectoryError):
                return None
            raise


def _drop_partial(place: RootedPath) -> None:
    with writing(place.path):
        try:
            partials.drop_partial(place)
        except (OSError, ValueError) as error:
            if not (means_absent(error) or isinstance(error, IsADirectoryError)):
                raise


def _open_outgoing(place: RootedPath) -> LocalOutgoingFile | None:
    with reading(place.path):
        try:
            return LocalOutgoingFile(place.path, beneath.open_regular(place))
        except (OSError, ValueError) as error:
            if means_absent(error):
                return None
            raise


def _create_empty(directory: Path, prefix: str, suffix: str) -> Path:
    while True:
        path = directory / f"{prefix}{secrets.randbelow(10**10)}{suffix}"
        with writing(path):
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            except FileExistsError:
                continue
            return path


def _walk_files(place: RootedPath) -> tuple[PurePosixPath, ...] | None:
    with reading(place.path):
        try:
            return tuple(beneath.walk_files(beneath.resolve(place)))
        except (OSError, ValueError) as error:
            if means_absent(error):
                return None
            raise
