"""Times of directories: what is put into one changes its time, so they are restored at the end."""

import os
import stat
from collections.abc import Iterator

_LATEST_MTIME_S = 2**33  # year 2242; what lies beyond is a broken header


def is_time(mtime_s: float) -> bool:
    """Whether a file can have it; no infinity, and not what is no number."""
    return 0 <= mtime_s < _LATEST_MTIME_S


def set_time(path: str, mtime_s: float) -> None:
    """Give `path` itself, link or not, a time; one that no file can have is left out."""
    if is_time(mtime_s):
        os.utime(path, (mtime_s, mtime_s), follow_symlinks=False)


class DirectoryTimes:
    """The times that directories below `root` shall have once everything is in its place."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._times: dict[str, float] = {}

    def note(self, path: str, mtime_s: float) -> None:
        """The directory `path` shall have this time."""
        self._times[path] = mtime_s

    def pending(self) -> Iterator[tuple[str, float]]:
        """Directories with their times; not those that a later entry replaced, themselves or above them."""
        found = {self._root}
        for path, mtime_s in self._times.items():
            if self._is_reached_without_links(path, found):
                yield path, mtime_s

    def _is_reached_without_links(self, path: str, found: set[str]) -> bool:
        end = len(self._root)
        while end < len(path):
            end = path.find("/", end + 1)
            end = len(path) if end < 0 else end
            step = path[:end]
            if step not in found:
                if not is_directory(step):
                    return False
                found.add(step)
        return True


def is_directory(path: str) -> bool:
    """Whether `path` itself is a directory, and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False
