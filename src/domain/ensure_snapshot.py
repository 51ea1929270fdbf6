"""Snapshots of repositories, whole and in place; made by one process at a time."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import anyio

from .build_snapshot import BuildSnapshot
from .committed_snapshots import CommittedSnapshots
from .errors import ArtifactMissing, ArtifactUnavailable, DownloadRefused, WorkerError
from .partial_trees import PartialTrees
from .ports.file_locks import FileLocks
from .ports.filesystem import FileSystem, RootedPath
from .ports.model_hub import HubFile
from .resolve_snapshot import ResolveSnapshot
from .snapshot_layout import committed_path, lock_path
from .snapshot_manifest import Manifest
from .snapshot_spec import SnapshotSpec

log = logging.getLogger(__name__)

_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.1, 5.0  # between looks at a lock that another has; as upstream


@dataclass(eq=False)
class SnapshotInWork(WorkerError):
    """Somebody else fetches the same snapshot and did not come to an end in time."""

    lock: Path
    waited_s: float

    def __str__(self) -> str:
        held = f"another process has held {self.lock} for {self.waited_s:g} s"
        return f"{held}; it fetches the same snapshot, try again when it is done"


@dataclass
class EnsureSnapshot:
    """Sees to it that a snapshot is there.

    One that is there is not asked for again where its version is pinned; else the hub says which version a
    branch means now. While the hub cannot be reached, the newest one of an earlier time does.
    Source: LocalAI pkg/modelartifacts/materializer.go.
    """

    filesystem: FileSystem
    models_path: Path
    resolver: ResolveSnapshot
    builder: BuildSnapshot
    committed: CommittedSnapshots
    trees: PartialTrees
    locks: FileLocks
    lock_wait_s: float = 30 * 60.0

    async def ensure(self, spec: SnapshotSpec) -> Manifest:
        """The snapshot that `spec` wants, fetched if it is not there yet.

        Raises:
            SnapshotInWork: another process has its lock for too long.
            InvalidSnapshotSpec: see `ResolveSnapshot`.
            ArtifactMissing, DownloadRefused, ArtifactUnavailable, ArtifactInvalid: the hub does not give it.
            NoSpace, PathEscapes, FileUnwritable, FileUnreadable: it cannot be written.
        """
        pinned = spec.resolved
        if pinned is not None:
            there = await self._found(spec.found_at(pinned.endpoint, pinned.revision))
            if there is not None:
                return there
        try:
            resolved, files = await self.resolver.resolve(spec)
        except (ArtifactMissing, DownloadRefused):
            raise
        except ArtifactUnavailable as error:
            earlier = await self.committed.latest(spec, self.resolver.hub.endpoint)
            if earlier is None or pinned is not None:
                raise
            log.warning("the snapshot of an earlier time is used, the hub cannot be asked: error=%s", error)
            return earlier.of(spec)
        async with self._locked(resolved):
            return await self._found(resolved) or await self._make(resolved, files)

    async def _found(self, spec: SnapshotSpec) -> Manifest | None:
        manifest = await self.committed.find(_key(spec))
        return None if manifest is None else manifest.of(spec)

    async def _make(self, spec: SnapshotSpec, files: tuple[HubFile, ...]) -> Manifest:
        tree = await self.trees.enter(_key(spec))
        manifest = await self.builder.build(spec, files, tree, self.resolver.token_for(spec))
        target = self._place(committed_path(_key(spec)))
        await self.filesystem.make_directory(target.path.parent)
        if (there := await self._found(spec)) is not None:  # by somebody whom the lock did not stop
            await self.trees.remove(tree)
            return there
        await self.filesystem.replace_directory(self._place(tree).path, target.path)
        log.info("snapshot is there: repository=%s path=%s", spec.repository, target.path)
        return manifest

    @asynccontextmanager
    async def _locked(self, spec: SnapshotSpec) -> AsyncIterator[None]:
        place = self._place(lock_path(_key(spec)))
        lock, waited_s, look_s = await self.locks.take(place), 0.0, _FIRST_LOOK_S
        if lock is None:
            log.info("waiting for another process that fetches the snapshot: lock=%s", place.path)
        while lock is None and waited_s < self.lock_wait_s:
            await anyio.sleep(look_s)
            waited_s, look_s = waited_s + look_s, min(2 * look_s, _LONGEST_LOOK_S)
            lock = await self.locks.take(place)
        if lock is None:
            raise SnapshotInWork(place.path, self.lock_wait_s)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await lock.release()

    def _place(self, path: PurePosixPath) -> RootedPath:
        return RootedPath(self.models_path, path)


def _key(spec: SnapshotSpec) -> str:
    assert spec.resolved is not None, "a version was found first"
    return spec.resolved.cache_key
