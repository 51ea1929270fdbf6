"""Directories that trees are built in, each locked by the process that builds, and swept when it is gone."""

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path

from ...domain.file_names import is_private_name, name_replaced, private_name
from . import beneath, trees
from .failures import reading, writing


class PrivateDirectories:
    """Makes them, and holds a lock on each until it is let go; all locks end with the process."""

    def __init__(self) -> None:
        self._locks: dict[Path, int] = {}

    def make(self, beside: Path) -> Path:
        """See `FileSystem.private_directory`."""
        path = beside.with_name(private_name(beside.name, secrets.token_hex(8)))
        with writing(path):
            path.mkdir(beneath.NEW_DIRECTORY_MODE)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with suppress(OSError):  # a file system without locks: then nothing is swept there either
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._locks[path] = descriptor
        return path

    def let_go(self, path: Path) -> None:
        """It has become something else, or is gone."""
        descriptor = self._locks.pop(path, -1)
        if descriptor >= 0:
            os.close(descriptor)


def sweep(directory: Path) -> tuple[Path, ...]:
    """See `FileSystem.sweep_private`."""
    swept = []
    for name in _names(directory):
        path = directory / name
        target = name_replaced(name)
        if not (target or is_private_name(name)) or not path.is_dir() or path.is_symlink():
            continue
        if _is_in_use(path):
            continue
        if target and not os.path.lexists(directory / target):
            with writing(directory / target):
                path.rename(directory / target)
        else:
            trees.remove_tree(path)
        swept.append(path)
    return tuple(swept)


def _names(directory: Path) -> list[str]:
    if not os.path.lexists(directory):
        return []
    with reading(directory):
        return sorted(path.name for path in directory.iterdir())


def _is_in_use(path: Path) -> bool:
    """Whether a living process holds the lock; also where locks are not to be had."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True  # its process is just done with it
    except OSError:
        return False  # not ours to read; removing it will tell why
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
