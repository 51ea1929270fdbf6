"""The hidden file in which another one is assembled: where a later attempt finds it, and how it is locked."""

import fcntl
import hashlib
import os
import secrets
import stat

from ...domain.file_names import private_name
from ...domain.ports.filesystem import RootedPath
from . import beneath
from .assembly_note import Note

FILE_MODE = 0o666  # less the umask, as Go's os.Create has it


def hidden_name(name: str) -> str:
    """Under which name the file `name` is assembled, so that a later attempt finds it."""
    return private_name(name, f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.ranges")


def open_hidden(name: str, directory: int) -> tuple[str, int]:
    """The hidden file, locked; another one where somebody else has it open."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    hidden = hidden_name(name)
    while True:
        descriptor = os.open(hidden, flags, FILE_MODE, dir_fd=directory)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            beneath.require_regular(os.fstat(descriptor))
            if _is_named(hidden, directory, descriptor):
                return hidden, descriptor
        except BlockingIOError:
            hidden = private_name(name, f"{secrets.token_hex(8)}.ranges")
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def kept_version(place: RootedPath) -> str | None:
    """See `RangedFiles.kept`; blocks."""
    try:
        with beneath.opened_entry(place) as (opened, name):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(hidden_name(name), flags, dir_fd=opened)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        note = Note.read(descriptor)
        return note.version if note else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _is_named(hidden: str, directory: int, descriptor: int) -> bool:
    """Whether the file we have locked still has its name: its last owner may have published it meanwhile."""
    try:
        named = os.stat(hidden, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)
