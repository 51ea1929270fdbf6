"""Whether a directory has changed: a few stats in one go, and not these twice in a twentieth of a second."""

import math
import os
import stat
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from anyio import to_thread

from .failures import means_absent, reading

_FRESH_S = 0.05
T = TypeVar("T")


@dataclass
class Fingerprints:
    """Fingerprints and inodes of directories; `forget` is for whoever changes something itself."""

    clock: Callable[[], float] = time.monotonic
    _known: dict[Hashable, tuple[float, object]] = field(default_factory=dict)
    _changes: int = 0

    def forget(self) -> None:
        """What was taken so far says nothing any more; nor does what is being taken now."""
        self._changes += 1
        self._known.clear()

    async def of(self, path: Path, files: tuple[str, ...]) -> Hashable:
        """See `FileSystem.fingerprint`."""
        return await self._fresh((path, files), partial(_take, path, files))

    async def inode_of(self, path: Path) -> int:
        """See `FileSystem.directory_inode`."""
        return await self._fresh(path, partial(_inode, path))

    async def _fresh(self, key: Hashable, take: Callable[[], T]) -> T:
        now_s = self.clock()
        taken_s, known = self._known.get(key, (-math.inf, None))
        if now_s - taken_s < _FRESH_S:
            return cast("T", known)
        changes = self._changes
        value = await to_thread.run_sync(take)
        if changes == self._changes:
            self._known[key] = (now_s, value)
        return value


def _inode(path: Path) -> int:
    with reading(path):
        stamp = _stamp(path)
    return stamp[1] if stamp and stamp[0] else 0


def _take(path: Path, files: tuple[str, ...]) -> Hashable:
    with reading(path):
        try:
            names = sorted(os.listdir(path))  # noqa: PTH208
        except (OSError, ValueError) as error:
            if means_absent(error):
                return None
            raise
        seen: list[Hashable] = [_inode(path)]
        for name in names:
            if name.startswith("."):
                continue  # while something is in the making it would be another one at every look
            entry = os.path.join(path, name)  # noqa: PTH118 - a Path for each would take most of the time
            stamp = _stamp(entry)
            seen.append((name, stamp))
            if stamp and stamp[0]:
                seen.extend(_stamp(os.path.join(entry, file)) for file in files)  # noqa: PTH118
    return tuple(seen)


def _stamp(path: Path | str) -> tuple[bool, int, int, int] | None:
    """Whether it is a directory, which file it is, and its last change of any kind; links are followed."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError) as error:
        if means_absent(error):
            return None
        raise
    return stat.S_ISDIR(status.st_mode), status.st_ino, status.st_ctime_ns, status.st_size
