"""The snapshots that a model's configuration wants: fetched, and written into it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from .ensure_snapshot import EnsureSnapshot
from .errors import WorkerError
from .ports.filesystem import RootedPath
from .prefetched_files import PrefetchedFiles
from .snapshot_layout import MANIFEST, SNAPSHOT, committed_path
from .snapshot_manifest import Manifest
from .wanted_snapshots import WantedSnapshots, declared_snapshots, inferred_reference, snapshot_of
from .yaml_values import YamlValue

log = logging.getLogger(__name__)


@dataclass
class BindSnapshots:
    """Fetches what configurations want.

    Nothing depends on a snapshot that only the backend's kind suggests: where it cannot be had, the backend
    will fetch the repository itself. One that is declared is part of the model.
    Source: LocalAI core/gallery/model_artifacts.go.
    """

    snapshots: EnsureSnapshot
    prefetched: PrefetchedFiles

    async def bind(self, name: str, config: Mapping[str, YamlValue]) -> Mapping[str, YamlValue]:
        """`config` of the model `name`, with the versions found in its `artifacts`.

        Raises:
            WorkerError: why a snapshot that is declared is not there.
        """
        declared = declared_snapshots(config)
        if declared is not None:
            return await self._bound(config, declared)
        try:
            inferred = await self._inferred(config)
            return config if inferred is None else await self._bound(config, inferred)
        except WorkerError as error:
            log.warning(
                "weights not prefetched, they are left to the backend: model=%s error=%s", name, error
            )
            return config

    async def _inferred(self, config: Mapping[str, YamlValue]) -> WantedSnapshots | None:
        reference = inferred_reference(config)
        if not reference or await self._is_there(reference):
            return None
        spec = snapshot_of(reference)
        return None if spec is None else WantedSnapshots((spec,))

    async def _is_there(self, reference: str) -> bool:
        """Whether the reference is the path of something below the models directory."""
        place = RootedPath(self.snapshots.models_path, PurePosixPath(reference))
        return await self.snapshots.filesystem.locate(place) is not None

    async def _bound(
        self, config: Mapping[str, YamlValue], wanted: WantedSnapshots
    ) -> Mapping[str, YamlValue]:
        written: list[YamlValue] = []
        for spec in wanted.specs:
            manifest = await self.snapshots.ensure(spec)
            await self._remember(manifest)
            written.append(manifest.spec.to_mapping())
        return {**config, "artifacts": written}

    async def sweep(self, *, ours: bool = False) -> None:
        """Remove what nobody came back for; see `PartialTrees.sweep`."""
        await self.snapshots.trees.sweep(ours=ours)

    async def _remember(self, manifest: Manifest) -> None:
        """A frontend stages the files of a snapshot under the same names, below the model's own.

        Their hashes were true when the manifest was written.
        """
        found = manifest.spec.resolved
        assert found is not None, "a snapshot that is there has a version"
        top = committed_path(found.cache_key)
        written = await self.snapshots.filesystem.stat(self.snapshots.models_path / top / MANIFEST)
        as_of_ns = written.modified_ns if written is not None else 0
        for each in manifest.files:
            self.prefetched.add(top / SNAPSHOT / each.file.path, each.sha256, as_of_ns=as_of_ns)
