"""Whole directory trees: put in place by renames, removed. Everything here blocks."""

import ctypes
import logging
import os
import secrets
import shutil
from pathlib import Path

from ...domain.errors import FileUnwritable
from ...domain.file_names import private_name
from .beneath import sync_directory
from .failures import writing

log = logging.getLogger(__name__)


def replace_directory(new: Path, target: Path) -> None:
    """See `FileSystem.replace_directory`."""
    aside = target.with_name(private_name(target.name, secrets.token_hex(8)))
    with writing(target):
        sync_file_system(new)
        try:
            target.rename(aside)
        except FileNotFoundError:
            had_old = False
        else:
            had_old = True
        try:
            new.rename(target)
        except OSError:
            if had_old:
                aside.rename(target)
            raise
        sync_directory(target.parent)
    if had_old:
        try:
            remove_tree(aside)
        except FileUnwritable as error:  # the new tree is in place, only its predecessor lingers
            log.warning("left behind: %s", error)


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
