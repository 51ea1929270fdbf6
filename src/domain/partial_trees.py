"""Trees in which snapshots are built: this worker's own, and what others left behind."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import WorkerError
from .ports.clock import Clock
from .ports.filesystem import FileKind, FileSystem, RootedPath
from .snapshot_layout import PARTIAL, key_of_tree, tree_path

log = logging.getLogger(__name__)


@dataclass
class PartialTrees:
    """Building sites below `models_path`; each belongs to one writer, which is part of its name.

    `writer` (16 hex digits) is this worker's for as long as it has its state directory: it finds its own
    tree again after a restart. A tree of another writer is taken over when nobody touched it for `idle_s`,
    and removed after `keep_s`; one of ours that nothing needs any more, after `ours_s`.
    Source: LocalAI pkg/modelartifacts/partial.go.
    """

    filesystem: FileSystem
    models_path: Path
    clock: Clock
    writer: Callable[[], str]
    idle_s: float = 5 * 60.0
    keep_s: float = 24 * 3600.0
    ours_s: float = 7 * 24 * 3600.0

    async def enter(self, key: str) -> PurePosixPath:
        """The tree to build the snapshot `key` in, with what is there of it; made if there is none.

        Only for whoever holds the lock of `key`.

        Raises:
            PathEscapes: a symlink leads out of the models directory.
            FileUnwritable: it cannot be made.
        """
        own = tree_path(key, self.writer())
        if await self.filesystem.locate(self._place(own)) is None:
            for name, age_s in await self._trees():
                if key_of_tree(name) == key and age_s >= self.idle_s and await self._adopt(name, own):
                    break
        await self.filesystem.make_directory(self._place(own).path)
        return own

    async def sweep(self, *, ours: bool = False) -> None:
        """Remove what others never came back for, with `ours` also what we did not.

        Not while something is built. What cannot be removed is told and tried again next time.
        """
        try:
            for name, age_s in await self._trees():
                longest_s = self.keep_s
                if self._is_ours(name):
                    longest_s = self.ours_s if ours else math.inf
                if age_s >= longest_s:
                    await self.filesystem.remove_tree(self._place(PARTIAL / name).path)
                    log.info("abandoned part of a snapshot removed: name=%s", name)
        except WorkerError as error:
            log.warning("abandoned parts of snapshots not removed: %s", error)

    async def remove(self, tree: PurePosixPath) -> None:
        """Remove a tree that is not needed any more."""
        await self.filesystem.remove_tree(self._place(tree).path)

    async def _adopt(self, name: str, own: PurePosixPath) -> bool:
        """Make the tree `name` ours; of several who try at a time one gets it, the others begin anew."""
        try:
            await self.filesystem.replace_directory(self._place(PARTIAL / name).path, self._place(own).path)
        except WorkerError as error:
            log.warning("abandoned part of a snapshot not taken over: name=%s error=%s", name, error)
            return False
        log.info("going on with an abandoned part of a snapshot: name=%s", name)
        return True

    def _is_ours(self, name: str) -> bool:
        return name.endswith(f".{self.writer()}")

    async def _trees(self) -> list[tuple[str, float]]:
        """All trees, and for how long nothing in them changed. Seconds."""
        if await self.filesystem.locate(self._place(PARTIAL)) is None:
            return []
        now_s = self.clock.now().timestamp()
        return [
            (entry.name, now_s - await self._changed_s(PARTIAL / entry.name))
            for entry in await self.filesystem.list_directory(self._place(PARTIAL).path)
            if key_of_tree(entry.name) and entry.kind is FileKind.DIRECTORY and not entry.is_link
        ]

    async def _changed_s(self, tree: PurePosixPath) -> float:
        """When anything in `tree` changed last, directories included."""
        files = await self.filesystem.walk_files(self._place(tree)) or ()
        names = {PurePosixPath(), *files, *(parent for file in files for parent in file.parents)}
        stats = [await self.filesystem.stat(self._place(tree / name).path) for name in names]
        return max((stat.modified_ns / 1e9 for stat in stats if stat is not None), default=0.0)

    def _place(self, path: PurePosixPath) -> RootedPath:
        return RootedPath(self.models_path, path)
