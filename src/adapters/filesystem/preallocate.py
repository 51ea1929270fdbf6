"""Room on the disk taken at once, where the file system can do that."""

import ctypes
import errno
import os
from functools import cache
from typing import Any

_SMALL_BYTES = 1024 * 1024  # the first write fails as soon
_CANNOT = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def take_room(descriptor: int, size_bytes: int) -> None:
    """Give the empty file `size_bytes` bytes, and the room for them.

    Not `posix_fallocate`: where a file system cannot do it, the C library writes every block instead, which
    takes as long as the download. Such a file stays sparse.

    Raises:
        OSError: the disk has no such room (ENOSPC), or the file may not be that large.
    """
    allocate = _fallocate()
    if allocate is not None and size_bytes >= _SMALL_BYTES:
        if allocate(descriptor, 0, 0, size_bytes) == 0:
            return
        code = ctypes.get_errno()
        if code not in _CANNOT:
            raise OSError(code, os.strerror(code))
    os.ftruncate(descriptor, size_bytes)


@cache
def _fallocate() -> Any:
    """The system call, on Linux."""
    allocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if allocate is not None:
        allocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return allocate
