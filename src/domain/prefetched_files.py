"""Files that prefetching put here: given to the frontend's probes, so that it need not send them again."""

import logging
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from .errors import WorkerError
from .ports.filesystem import FileSystem, RootedPath

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    """The hash that a file had ("": not known) as long as it did not change after `as_of_ns`."""

    sha256: str
    as_of_ns: int


@dataclass
class PrefetchedFiles:
    """What was prefetched below `models_path`, by its path there.

    The frontend stages a model's files below the model's own name, where prefetching put none. A file of
    the same path below that name is the same file for all we know; the frontend compares the hash.
    """

    filesystem: FileSystem
    models_path: Path
    _files: dict[PurePosixPath, _Known] = field(default_factory=dict)

    def add(self, path: PurePosixPath, sha256: str = "", *, as_of_ns: int = 0) -> None:
        """Remember that `path` was prefetched, and had this hash when it was changed last, at `as_of_ns`."""
        self._files[path] = _Known(sha256, as_of_ns)

    async def supply(self, place: RootedPath) -> str | None:
        """Make a prefetched file appear at `place`, where none is.

        Its SHA-256, "" where that is not known without reading it; None where there is no such file.
        """
        if place.root != self.models_path:
            return None
        parts = place.relative.parts
        for cut in range(1, len(parts)):
            path = PurePosixPath(*parts[cut:])
            if path in self._files:
                source = RootedPath(self.models_path, path)
                try:
                    stat = await self.filesystem.locate(source)
                    await self.filesystem.share(source, place)
                except WorkerError as error:  # then the frontend sends its own, as ever
                    log.warning("prefetched file not shared: path=%s error=%s", path, error)
                    return None
                log.info("prefetched file shared: path=%s with=%s", path, place.relative)
                known = self._files[path]
                unchanged = stat is not None and stat.modified_ns <= known.as_of_ns
                return known.sha256 if unchanged else ""
        return None
