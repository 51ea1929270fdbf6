"""The operating system's failures, put into the domain's terms; nothing else of them leaves this package."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...domain.errors import FileUnreadable, FileUnwritable, NoSpace

FULL = {errno.ENOSPC, errno.EDQUOT}
# Looking for a name that long, through a file, or round a circle of links finds nothing.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside into `FileUnreadable(path)`."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate in the name
        raise FileUnreadable(path, reason_of(error)) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside into `NoSpace(path)` or `FileUnwritable(path)`."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise NoSpace(path, f"{reason_of(error)}; free some and try again") from error
        raise FileUnwritable(path, reason_of(error)) from error


def means_absent(error: OSError | ValueError) -> bool:
    """Whether a look at a path failed because nothing is there, or nothing of that name can be."""
    return not isinstance(error, OSError) or error.errno in _ABSENT


def reason_of(error: OSError | ValueError) -> str:
    """What went wrong, without the number and the path that the error text repeats."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
