"""Files on their way in that are whole after one attempt, or gone."""

import errno
import os
import secrets

from ...domain.file_names import TARGET_SIDECAR_SUFFIX, partial_directory_name, private_name
from ...domain.ports.filesystem import FileStat, RootedPath
from . import beneath, directories
from .failures import writing
from .hashing_writer import HashingWriter
from .received_file import ReceivedFile, make_durable


class LocalIncomingFile(ReceivedFile):
    """An `IncomingFile` under a hidden name in the directory of its target."""

    def __init__(self, place: RootedPath, mode: int) -> None:
        """Create the hidden file; blocks.

        Raises:
            PathEscapes, NoSpace, FileUnwritable: see `FileSystem.open_incoming`.
        """
        self._target = place.path
        with writing(self._target):
            self._directory, self._name = beneath.open_entry(place, create=True)
            self._temporary = private_name(self._name, secrets.token_hex(8))
            try:
                directories.refuse_directory(self._name, self._directory)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = os.open(self._temporary, flags, mode, dir_fd=self._directory)
                self.has_leftovers = leftovers_of(self._name, self._directory)
            except BaseException:
                os.close(self._directory)
                raise
        self._writer = HashingWriter(self._file, self._target)

    def _publish(self) -> FileStat:
        directory = self._open_directory()
        self._writer.flush()
        with writing(self._target):
            published = make_durable(self._file)
            os.rename(self._temporary, self._name, src_dir_fd=directory, dst_dir_fd=directory)
            self._close()
            try:
                directories.sync_open_directory(directory)
            finally:
                os.close(directory)
        return published

    def _discard(self) -> None:
        directory = self._open_directory()
        self._close()
        try:
            with writing(self._target):
                os.unlink(self._temporary, dir_fd=directory)
        finally:
            os.close(directory)

    def _close(self) -> None:
        self._directory = None
        self._writer.close()


def leftovers_of(name: str, directory: int) -> bool:
    """See `IncomingFile.has_leftovers`."""
    for hidden in (partial_directory_name(name), name + TARGET_SIDECAR_SUFFIX):
        try:
            os.stat(hidden, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENAMETOOLONG}:
                raise
        else:
            return True
    return False


def write_note(place: RootedPath, content: bytes, mode: int) -> None:
    """See `FileSystem.write_note`."""
    with writing(place.path), beneath.opened_entry(place) as (parent, name):
        directories.refuse_directory(name, parent)
        temporary = private_name(name, secrets.token_hex(8))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(temporary, flags, mode, dir_fd=parent)
        try:
            with os.fdopen(file, "wb") as note:
                note.write(content)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            os.unlink(temporary, dir_fd=parent)
            raise
