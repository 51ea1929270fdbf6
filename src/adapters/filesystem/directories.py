"""Directories made, and names in them that survive a power cut."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path


def make_directories(path: Path, mode: int) -> None:
    """Create `path` and its missing parents, all with `mode` (less the umask), durably."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        if path.parent == path:
            break
        path = path.parent
    for directory in reversed(missing):
        with suppress(FileExistsError):
            directory.mkdir(mode)
            sync_directory(directory.parent)
        if not directory.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{directory} is not a directory")


def sync_directory(path: Path) -> None:
    """Make the names in the directory `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_open_directory(descriptor)
    finally:
        os.close(descriptor)


def sync_open_directory(descriptor: int) -> None:
    """Make the names in an open directory durable."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems know no such thing
            raise


def refuse_directory(name: str, directory: int) -> None:
    """Raise IsADirectoryError when `name` in the open `directory` is one."""
    try:
        status = os.stat(name, dir_fd=directory)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError("a directory stands in the way")
