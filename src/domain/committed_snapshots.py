"""Snapshots that are whole, as their manifests say."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import WorkerError
from .ports.filesystem import FileKind, FileSystem, RootedPath
from .ports.model_hub import HubFile
from .snapshot_layout import COMMITTED, MANIFEST, SNAPSHOT, committed_path, is_key
from .snapshot_manifest import Manifest
from .snapshot_spec import SnapshotSpec

log = logging.getLogger(__name__)

_MANIFEST_LIMIT_BYTES = 64 << 20  # of 100,000 files


@dataclass
class CommittedSnapshots:
    """Looks for snapshots below `models_path`. What is damaged is not there."""

    filesystem: FileSystem
    models_path: Path

    async def find(self, key: str) -> Manifest | None:
        """The snapshot `key`, every file of it there with its size; None where it is not."""
        manifest = await self._manifest(key)
        if manifest is None:
            return None
        for each in manifest.files:
            found = await self.filesystem.locate(self.place(key, each.file.path))
            right = found is not None and found.kind is FileKind.FILE
            if not right or found is None or found.size_bytes != each.file.size_bytes:
                log.warning("snapshot is damaged: key=%s file=%s", key, each.file.path)
                return None
        return manifest

    async def latest(self, spec: SnapshotSpec, endpoint: str) -> Manifest | None:
        """The newest snapshot from the hub at `endpoint` that was made for what `spec` asks; None without."""
        newest: tuple[int, str] | None = None
        async for manifest, made_ns in self._all():
            found = manifest.spec.resolved
            if found is not None and found.endpoint == endpoint and manifest.spec.wants_same(spec):
                newest = max(newest or (0, ""), (made_ns, found.cache_key))
        return await self.find(newest[1]) if newest is not None else None

    async def contents(self, repository: str) -> dict[tuple[str, int], RootedPath]:
        """Where files of other versions of `repository` lie, by the hash they were fetched for and size."""
        known: dict[tuple[str, int], RootedPath] = {}
        async for manifest, _ in self._all():
            if manifest.spec.repository == repository and manifest.spec.resolved is not None:
                key = manifest.spec.resolved.cache_key
                known |= {content_of(each.file): self.place(key, each.file.path) for each in manifest.files}
        return known

    def place(self, key: str, path: str) -> RootedPath:
        """Where the file `path` of the snapshot `key` lies."""
        return RootedPath(self.models_path, committed_path(key) / SNAPSHOT / path)

    async def _all(self) -> AsyncIterator[tuple[Manifest, int]]:
        """Every snapshot with a manifest, and when that was written. Nanoseconds."""
        root = RootedPath(self.models_path, COMMITTED)
        if await self.filesystem.locate(root) is None:
            return
        for entry in await self.filesystem.list_directory(root.path):
            if not is_key(entry.name):
                continue
            manifest = await self._manifest(entry.name)
            stat = await self.filesystem.stat(root.path / entry.name / MANIFEST)
            if manifest is not None and stat is not None:
                yield manifest, stat.modified_ns

    async def _manifest(self, key: str) -> Manifest | None:
        place = RootedPath(self.models_path, PurePosixPath(committed_path(key)) / MANIFEST)
        if await self.filesystem.locate(place) is None:
            return None
        try:
            content = await self.filesystem.read(place.path, limit_bytes=_MANIFEST_LIMIT_BYTES)
            manifest = Manifest.from_json(content)
        except WorkerError as error:
            log.warning("snapshot is not used: key=%s error=%s", key, error)
            return None
        found = manifest.spec.resolved
        return manifest if found is not None and found.cache_key == key else None


def content_of(file: HubFile) -> tuple[str, int]:
    """What tells the content of `file` from any other."""
    return (file.lfs_sha256 or file.blob_id, file.size_bytes)
