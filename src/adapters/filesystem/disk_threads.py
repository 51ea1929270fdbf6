"""Threads that wait for the disk."""

from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

_DISK_THREADS = 4
_waiting: RunVar[CapacityLimiter] = RunVar("waiting for the disk")


def disk_threads() -> CapacityLimiter:
    """A few for all files of an event loop: the other threads have more to do than to wait."""
    try:
        return _waiting.get()
    except LookupError:
        limiter = CapacityLimiter(_DISK_THREADS)
        _waiting.set(limiter)
        return limiter
