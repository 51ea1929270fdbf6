"""Whole directory trees: put in place by renames, removed. Everything here blocks."""

import ctypes
import logging
import os
import secrets
import shutil
from pathlib import Path

from ...domain.errors import FileUnwritable
from ...domain.file_names import replaced_name
from .directories import sync_directory
from .failures import writing

log = logging.getLogger(__name__)

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def replace_directory(new: Path, target: Path) -> None:
    """See `FileSystem.replace_directory`."""
    with writing(target):
        sync_file_system(new)
        old = _swap(new, target)
        sync_directory(target.parent)
    if old is not None:
        try:
            remove_tree(old)
        except FileUnwritable as error:  # the new tree is in place, only its predecessor lingers
            log.warning("left behind: %s", error)


def _swap(new: Path, target: Path) -> Path | None:
    """Put `new` in the place of `target`; returns where the old tree is now, None if there was none."""
    if _exchange(new, target):
        return new
    aside = target.with_name(replaced_name(target.name, secrets.token_hex(8)))
    try:
        target.rename(aside)
    except FileNotFoundError:
        new.rename(target)
        return None
    try:
        new.rename(target)
    except OSError:
        aside.rename(target)
        raise
    return aside


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths swap what they name, in one step; False where the system cannot, or one is missing."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2") or not one.is_dir():
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


def remove_tree(path: Path) -> None:
    """See `FileSystem.remove_tree`."""
    with writing(path):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except FileNotFoundError:
            return
        except RecursionError as error:
            raise FileUnwritable(path, "directories are nested too deeply to remove") from error


def sync_file_system(path: Path) -> None:
    """Make everything written to the file system of the directory `path` durable.

    One call for a tree of any size, and unlike sync(2) it does not wait for other file systems, of which
    one may be a network mount that no longer answers.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)
