"""Files on their way in of which a broken attempt leaves what came, for the next one to go on from.

Beside its target a partial file has a hidden directory of its own. In it lies one file, named for the
hash and size it will have; a lock on the directory says that somebody writes.
"""

import errno
import fcntl
import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from anyio import to_thread

from ...domain.errors import FileInUse
from ...domain.file_names import parse_partial_file_name, partial_directory_name, partial_file_name
from ...domain.ports.filesystem import FileStat, PartialStat, RootedPath
from . import beneath, directories
from .failures import writing
from .hashing_writer import HashingWriter
from .received_file import ReceivedFile, make_durable

REMEMBERED_DIGESTS = 64  # a few hundred bytes each; an upload that resumes later is read again
_ATTEMPTS = 3  # to enter a directory that its last writer removes at that moment
# File systems without locks: then only this process's own uploads know of each other.
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far a kept file was hashed; worthless once the file has another size or time."""

    size_bytes: int
    modified_ns: int
    digest: "hashlib._Hash"
    hashed_bytes: int


@dataclass
class PartialDigests:
    """Where the hashes of kept files stood, so that a resumed upload is not read from its beginning."""

    _known: "OrderedDict[tuple[int, int], _Progress]" = field(default_factory=OrderedDict)

    def put(self, file: int, writer: HashingWriter) -> None:
        """Remember the hash of the open `file`, all of which is written."""
        status = os.fstat(file)
        self._known[status.st_dev, status.st_ino] = _Progress(
            status.st_size, status.st_mtime_ns, *writer.progress
        )
        if len(self._known) > REMEMBERED_DIGESTS:
            self._known.popitem(last=False)

    def writer(self, file: int, place: RootedPath) -> HashingWriter:
        """A writer that goes on at the end of the open `file`."""
        status = os.fstat(file)
        known = self._known.pop((status.st_dev, status.st_ino), None)
        if known and (known.size_bytes, known.modified_ns) == (status.st_size, status.st_mtime_ns):
            return HashingWriter(
                file,
                place.path,
                size_bytes=status.st_size,
                digest=known.digest,
                hashed_bytes=known.hashed_bytes,
            )
        return HashingWriter(file, place.path, size_bytes=status.st_size)


class LocalPartialFile(ReceivedFile):
    """A `PartialFile`; holds its directory's lock for as long as it is open."""

    has_leftovers = True  # itself, if nothing else

    def __init__(
        self, place: RootedPath, sha256: str, total_bytes: int, mode: int, digests: PartialDigests
    ) -> None:
        """Open or create the partial file; blocks.

        Raises:
            PathEscapes, FileInUse, NoSpace, FileUnwritable: see `FileSystem.open_partial`.
        """
        self._target = place.path
        self._digests = digests
        self._file_name = partial_file_name(sha256, total_bytes)
        with writing(self._target):
            self._directory, self._name = beneath.open_entry(place, create=True)
            try:
                directories.refuse_directory(self._name, self._directory)
                self._holder, self._file = self._enter(self._directory, mode)
            except BaseException:
                os.close(self._directory)
                raise
        self._writer = digests.writer(self._file, place)

    async def keep(self) -> None:
        if self._directory is not None:
            await to_thread.run_sync(self._keep)

    def _publish(self) -> FileStat:
        directory = self._open_directory()
        self._writer.flush()
        with writing(self._target):
            published = make_durable(self._file)
            os.rename(self._file_name, self._name, src_dir_fd=self._holder, dst_dir_fd=directory)
            _remove_empty(partial_directory_name(self._name), directory)
            directories.sync_open_directory(directory)
        self._close()
        return published

    def _discard(self) -> None:
        directory = self._open_directory()
        try:
            with writing(self._target):
                _unlink(self._file_name, self._holder)
                _remove_empty(partial_directory_name(self._name), directory)
        finally:
            self._close()

    def _keep(self) -> None:
        try:
            self._writer.flush()
            self._digests.put(self._file, self._writer)
        finally:
            self._close()

    def _enter(self, directory: int, mode: int) -> tuple[int, int]:
        """Descriptors of the locked hidden directory and of the file in it."""
        for attempt in range(_ATTEMPTS):
            holder = beneath.enter(directory, partial_directory_name(self._name), create=True)
            try:
                _lock(holder, self._target)
                for name in _names(holder):
                    if name != self._file_name:
                        _unlink(name, holder)
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                file = os.open(self._file_name, flags, mode, dir_fd=holder)
                beneath.require_regular(os.fstat(file))
            except FileNotFoundError:
                os.close(holder)  # its last writer published just now, and took the directory away
                if attempt == _ATTEMPTS - 1:
                    raise
            except BaseException:
                os.close(holder)
                raise
            else:
                return holder, file
        raise AssertionError

    def _close(self) -> None:
        directory = self._open_directory()
        self._directory = None
        self._writer.close()
        os.close(self._holder)  # and with it the lock
        os.close(directory)


def find_partial(place: RootedPath) -> PartialStat | None:
    """See `FileSystem.find_partial`; raises OSError when nothing is there."""
    with (
        beneath.opened_entry(place) as (parent, name),
        _entered(parent, partial_directory_name(name)) as holder,
    ):
        for found in _names(holder):
            parsed = parse_partial_file_name(found)
            status = os.stat(found, dir_fd=holder, follow_symlinks=False)
            if parsed is not None and stat.S_ISREG(status.st_mode):
                return PartialStat(*parsed, status.st_size)
    return None


def drop_partial(place: RootedPath) -> None:
    """See `FileSystem.drop_partial`; raises OSError when nothing is there."""
    with (
        beneath.opened_entry(place) as (parent, name),
        _entered(parent, hidden := partial_directory_name(name)) as holder,
    ):
        _lock(holder, place.path)
        for found in _names(holder):
            _unlink(found, holder)
        _remove_empty(hidden, parent)


@contextmanager
def _entered(parent: int, name: str) -> Iterator[int]:
    descriptor = beneath.enter(parent, name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(holder: int, path: Path) -> None:
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            raise FileInUse(path) from error
        if error.errno not in _NO_LOCKS:
            raise


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def _unlink(name: str, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return


def _remove_empty(name: str, directory: int) -> None:
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
            raise
