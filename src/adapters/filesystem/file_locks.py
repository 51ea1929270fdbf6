"""Locks between processes: flock, as upstream holds them."""

import errno
import fcntl
import os

from anyio import to_thread

from ...domain.ports.filesystem import RootedPath
from . import beneath
from .failures import writing

# Network file systems tell that another has the lock in words of their own.
_TAKEN = {errno.EWOULDBLOCK, errno.EACCES, errno.EBUSY}
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_MODE = 0o600


class LocalFileLock:
    """A `FileLock`: the open file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    async def release(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            await to_thread.run_sync(os.close, descriptor)


class LocalFileLocks:
    """`FileLocks` on this machine, and on others that share the file system if that knows locks."""

    async def take(self, place: RootedPath) -> LocalFileLock | None:
        descriptor = await to_thread.run_sync(_take, place)
        return None if descriptor is None else LocalFileLock(descriptor)


def _take(place: RootedPath) -> int | None:
    with writing(place.path):
        parent, name = beneath.open_entry(place, create=True)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, _MODE, dir_fd=parent)
        finally:
            os.close(parent)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return descriptor
            os.close(descriptor)
            if error.errno in _TAKEN:
                return None
            raise
        return descriptor
