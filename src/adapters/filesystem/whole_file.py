"""Small files written in one go: one visit to another thread instead of six."""

import os
import secrets
from collections.abc import Callable

from ...domain.file_names import private_name
from ...domain.ports.filesystem import FileKind, FileStat, RootedPath
from . import beneath
from .failures import writing
from .hidden_file import FILE_MODE
from .settling import Settler, Unsettled

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalWholeFile:
    """A `WholeFile`, held open until the disk has it."""

    def __init__(
        self, place: RootedPath, content: bytes, approve: Callable[[bytes], None], settler: Settler
    ) -> None:
        """Write the file and let it appear; blocks.

        Raises:
            PathEscapes, NoSpace, FileUnwritable: see `RangedFiles.put_whole`.
        """
        approve(content)
        self._settler = settler
        with writing(place.path):
            directory, name = beneath.open_entry(place, create=True)
            try:
                file = _write(content, name, directory)
            except BaseException:
                os.close(directory)
                raise
            status = os.fstat(file)
        self._unsettled: Unsettled | None = Unsettled(place.path, file, directory)
        self.stat = FileStat(FileKind.FILE, status.st_size, status.st_mtime_ns, status.st_ino)

    async def settle(self) -> None:
        unsettled, self._unsettled = self._unsettled, None
        if unsettled is not None:
            await self._settler.settle(unsettled)


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
