"""Files that prefetching put here: given to the frontend's probes, so that it need not send them again."""

import logging
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from .errors import WorkerError
from .ports.filesystem import FileSystem, RootedPath

log = logging.getLogger(__name__)


@dataclass
class PrefetchedFiles:
    """What was prefetched below `models_path`, by its path there.

    The frontend stages a model's files below the model's own name, where prefetching put none. A file of
    the same path below that name is the same file for all we know; the frontend compares the hash.
    """

    filesystem: FileSystem
    models_path: Path
    _files: set[PurePosixPath] = field(default_factory=set)

    def add(self, path: PurePosixPath) -> None:
        """Remember that `path` was prefetched."""
        self._files.add(path)

    async def supply(self, place: RootedPath) -> bool:
        """Make a prefetched file appear at `place`, where none is; whether it does now."""
        if place.root != self.models_path:
            return False
        parts = place.relative.parts
        for cut in range(1, len(parts)):
            path = PurePosixPath(*parts[cut:])
            if path in self._files:
                try:
                    await self.filesystem.share(RootedPath(self.models_path, path), place)
                except WorkerError as error:  # then the frontend sends its own, as ever
                    log.warning("prefetched file not shared: path=%s error=%s", path, error)
                    return False
                log.info("prefetched file shared: path=%s with=%s", path, place.relative)
                return True
        return False
