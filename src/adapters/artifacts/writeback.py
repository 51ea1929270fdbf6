"""Writing to disk while the work goes on, so that the sync at its end has little left to wait for."""

import ctypes
from collections.abc import Callable
from functools import cache

_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h


def begin_writeback(descriptor: int) -> None:
    """Let the system begin to write what was written to the file, and wait for nothing.

    Promises nothing either: whether all is on the disk, and what went wrong, a sync tells.
    """
    start = _sync_file_range()
    if start is not None:
        start(descriptor, 0, 0, _SYNC_FILE_RANGE_WRITE)  # from the beginning to the end


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """sync_file_range(2); None where the system has no such call."""
    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function
