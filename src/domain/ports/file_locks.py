"""Locks that processes on one file system hold against each other."""

from typing import Protocol

from .filesystem import RootedPath


class FileLock(Protocol):
    """A lock that is held; it ends with `release`, or with the process however that ends."""

    async def release(self) -> None:
        """Let it go; idempotent."""


class FileLocks(Protocol):
    """Locks by name: a file stands for each, which stays when the lock is let go."""

    async def take(self, place: RootedPath) -> FileLock | None:
        """Take the lock of `place`; None while somebody else has it, in this process or another.

        Its file is made if it is missing (0600), and so are its directories (0750). On a file system that
        knows no locks everybody gets it.

        Raises:
            PathEscapes: a symlink leads out of the root.
            NoSpace, FileUnwritable: its file cannot be made.
        """
