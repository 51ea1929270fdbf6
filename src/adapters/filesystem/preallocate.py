"""Room on the disk taken at once, where the file system can do that."""

import ctypes
import errno
import os

_CANNOT = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def take_room(descriptor: int, size_bytes: int) -> None:
    """Give the empty file `size_bytes` bytes, and the room for them.

    Not `posix_fallocate`: where a file system cannot do it, the C library writes every block instead, which
    takes as long as the download. Such a file stays sparse.

    Raises:
        OSError: the disk has no such room (ENOSPC), or the file may not be that large.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    allocate = getattr(libc, "fallocate", None)  # Linux only
    if allocate is not None and size_bytes:
        allocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        if allocate(descriptor, 0, 0, size_bytes) == 0:
            return
        code = ctypes.get_errno()
        if code not in _CANNOT:
            raise OSError(code, os.strerror(code))
    os.ftruncate(descriptor, size_bytes)
