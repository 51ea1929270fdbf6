"""Opening a local file that somebody named."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from ...domain.errors import ArtifactMissing, ArtifactUnavailable


def absolute_path(uri: str, scheme: str, *, like: str) -> Path:
    """The path in `uri`, with or without `scheme`; `like` is what a right one ends with.

    Raises:
        ArtifactUnavailable: it is not absolute.
    """
    path = Path(uri.removeprefix(scheme))
    if not path.is_absolute():
        raise ArtifactUnavailable(uri, f"{path} is no absolute path; write {scheme}/path/to/{like}")
    return path


def open_regular(path: Path, uri: str) -> BinaryIO:
    """The regular file `path`, open for reading.

    Raises:
        ArtifactMissing: nothing is there.
        ArtifactUnavailable: it is something else, or not ours to read.
    """
    try:
        # Without O_NONBLOCK a pipe of this name would hold the thread until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise ArtifactMissing(uri, str(error.strerror)) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ArtifactUnavailable(uri, getattr(error, "strerror", None) or str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtifactUnavailable(uri, "it is no regular file")
    return os.fdopen(descriptor, "rb")
