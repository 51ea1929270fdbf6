"""Links on file systems that have none (CIFS, some network shares): copies of what they lead to."""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

_REFUSED = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})


def is_refused(error: OSError) -> bool:
    """Whether the file system knows no such links."""
    return error.errno in _REFUSED


@dataclass
class LinkCopies:
    """Symlinks below `root` that were refused; `settle` puts copies in their places, once all else is there.

    `count` hears of everything that is copied, with its size, and may end it; `make` makes a directory, by
    path and name. A link that leads out of `root`, or nowhere, has nothing to copy: it is left out, and told.
    """

    root: Path
    count: Callable[[int], None]
    make: Callable[[str, str], None]
    _refused: dict[Path, str] = field(default_factory=dict)

    def note(self, path: str, target: str) -> None:
        """`path` should be a link to `target`."""
        self._refused[Path(path)] = target

    def forget(self, path: str) -> None:
        """What should be at `path`, or below it, is no longer wanted."""
        for refused in [each for each in self._refused if each.is_relative_to(path)]:
            del self._refused[refused]

    def settle(self) -> None:
        """Copy; links to links need several rounds.

        Raises:
            OSError: the file system refuses copies too.
        """
        has_moved_on = True
        while self._refused and has_moved_on:
            has_moved_on = False
            for path, target in list(self._refused.items()):
                source = self._source(path, target)
                if source is not None and not os.path.lexists(path) and not path.is_relative_to(source):
                    self._copy(source, path)
                    has_moved_on = True
                if os.path.lexists(path):
                    del self._refused[path]
        for path, target in self._refused.items():
            log.warning("link left out, nothing to copy in its place: path=%s target=%s", path, target)

    def _source(self, path: Path, target: str) -> Path | None:
        start = self.root if target.startswith("/") else path.parent
        source = Path(os.path.normpath(f"{start}/{target.lstrip('/')}"))
        inside = source.is_relative_to(self.root) and source != self.root and source.exists()
        return source if inside and source.resolve().is_relative_to(self.root) else None

    def _copy(self, source: Path, path: Path) -> None:
        if source.is_dir():
            self.count(0)
            self.make(str(path), str(path.relative_to(self.root)))
            for name, child in _children(source):
                self._copy(child, path / name)
            shutil.copystat(source, path)
        elif source.is_file():
            self.count(source.stat().st_size)
            shutil.copy2(source, path)


def _children(directory: Path) -> Iterator[tuple[str, Path]]:
    for child in sorted(directory.iterdir()):
        yield child.name, child
