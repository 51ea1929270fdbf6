"""Small files written in one go: one visit to another thread instead of six."""

import os
import secrets
from collections.abc import Callable

from anyio import to_thread

from ...domain.file_names import private_name
from ...domain.ports.filesystem import FileKind, FileStat, RootedPath
from . import beneath, directories
from .disk_threads import disk_threads
from .failures import writing
from .hidden_file import FILE_MODE

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalWholeFile:
    """A `WholeFile`, held open until the disk has it."""

    def __init__(self, place: RootedPath, content: bytes, approve: Callable[[bytes], None]) -> None:
        """Write the file and let it appear; blocks.

        Raises:
            PathEscapes, NoSpace, FileUnwritable: see `RangedFiles.put_whole`.
        """
        approve(content)
        self._target = place.path
        self._settled = False
        with writing(self._target):
            self._directory, name = beneath.open_entry(place, create=True)
            try:
                self._file = _write(content, name, self._directory)
            except BaseException:
                os.close(self._directory)
                raise
            status = os.fstat(self._file)
        self.stat = FileStat(FileKind.FILE, status.st_size, status.st_mtime_ns, status.st_ino)

    async def settle(self) -> None:
        if not self._settled:
            self._settled = True
            await to_thread.run_sync(self._settle, limiter=disk_threads())

    def _settle(self) -> None:
        try:
            with writing(self._target):
                os.fsync(self._file)
                directories.sync_open_directory(self._directory)
        finally:
            os.close(self._file)
            os.close(self._directory)


def _write(content: bytes, name: str, directory: int) -> int:
    """Let `name` appear in the open `directory`; a descriptor of the file, which the caller closes."""
    temporary = private_name(name, secrets.token_hex(8))
    file = os.open(temporary, _FLAGS, FILE_MODE, dir_fd=directory)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.utime(file)  # as old as its appearance, as every file of ours
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.close(file)
        os.unlink(temporary, dir_fd=directory)
        raise
    return file
