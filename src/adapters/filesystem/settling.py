"""Files that appeared, made safe from a power cut: many in one visit to a thread."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio import to_thread

from ...domain.errors import FileUnwritable
from ..loop_threads import LoopThreads
from . import directories
from .failures import writing

_threads = LoopThreads("waiting for the disk", 4)


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A file and the directory of its name, both held open by descriptors."""

    path: Path
    file: int
    directory: int


@dataclass
class _Outcome:
    done: bool = False
    failure: FileUnwritable | None = None


@dataclass
class Settler:
    """Settles together what is waited for at the same time."""

    _waiting: list[tuple[Unsettled, _Outcome]] = field(default_factory=list)
    _turn: anyio.Lock = field(default_factory=anyio.Lock)

    async def settle(self, unsettled: Unsettled) -> None:
        """Return once the file is safe, and its descriptors are closed.

        Raises:
            NoSpace, FileUnwritable: it may not be safe.
        """
        outcome = _Outcome()
        self._waiting.append((unsettled, outcome))
        with anyio.CancelScope(shield=True):  # as every visit to a thread
            async with self._turn:
                if not outcome.done:
                    await self._settle_waiting()
        if outcome.failure is not None:
            raise outcome.failure

    async def _settle_waiting(self) -> None:
        taken, self._waiting = self._waiting, []
        files = [unsettled for unsettled, _ in taken]
        failures = await to_thread.run_sync(settle, files, limiter=_threads.limiter())
        for (_, outcome), failure in zip(taken, failures, strict=True):
            outcome.done, outcome.failure = True, failure


def settle(waiting: Sequence[Unsettled]) -> list[FileUnwritable | None]:
    """Wait for the disk, let go of everything, and tell what went wrong with each; blocks.

    Each directory is asked for once, after all files: then whichever name came last is durable too.
    """
    try:
        files = [_failure(each.path, os.fsync, each.file) for each in waiting]
        inodes = [_inode(each.directory) for each in waiting]
        names = {
            inode: _failure(each.path, directories.sync_open_directory, each.directory)
            for inode, each in dict(zip(inodes, waiting, strict=True)).items()
        }
    finally:
        for each in waiting:
            os.close(each.file)
            os.close(each.directory)
    return [failure or names[inode] for failure, inode in zip(files, inodes, strict=True)]


def _failure(path: Path, sync: Callable[[int], None], descriptor: int) -> FileUnwritable | None:
    try:
        with writing(path):
            sync(descriptor)
    except FileUnwritable as error:
        return error
    return None


def _inode(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
