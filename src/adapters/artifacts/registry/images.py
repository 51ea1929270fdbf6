"""Images in registries: `oci://...`, `quay.io/...`, `namespace/name:tag`."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ....domain.errors import ArtifactInvalid
from ....domain.ports.artifacts import (
    Approve,
    ArtifactEstimate,
    FetchedArtifact,
    Report,
    approve_any,
    unreported,
)
from ..blobs.download import Downloads, RemoteBlob
from ..blobs.reader import BlobReader, is_intact
from ..blobs.room import Room
from ..blobs.shared_blob import SharedBlob
from ..blobs.store import BlobStore
from ..filing import unwritable
from ..image_manifest import host_platform
from ..layers import apply_layer
from ..progress import CountingReader, Meter, reporting, unpacked_estimate
from ..tree import TreeBuilder, TreeLimits
from ..web.flight import Flight, in_flight, run
from .client import RegistryClient
from .opener import BlobOpener
from .resolve import ResolvedImage, resolve

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RegistryImages:
    """An `ArtifactSource` for images in registries.

    Layers are fetched side by side and by ranges into `store`, while those that have come are verified,
    decompressed and unpacked. What is in the store already is not fetched, and an interrupted fetch goes
    on where it ended. `floor_bytes` of the disk stay free.
    """

    client: RegistryClient
    store: BlobStore
    floor_bytes: int = 512 << 20
    connections: int = 8
    limits: TreeLimits = field(default_factory=TreeLimits)
    platform: str = field(default_factory=host_platform)

    async def fetch(
        self,
        uri: str,
        into: Path,
        *,
        sha256: str = "",
        approve: Approve = approve_any,
        report: Report = unreported,
    ) -> FetchedArtifact:
        del sha256  # an image vouches for itself
        async with reporting(report) as meter, in_flight() as flight:
            image = await run(partial(resolve, self.client, uri, self.platform, flight), flight)
            await approve(image.manifest_digest)
            return await run(partial(self._fetch, uri, image, into, meter, flight), flight)

    async def describe(self, uri: str) -> ArtifactEstimate:
        async with in_flight() as flight:
            image = await run(partial(resolve, self.client, uri, self.platform, flight), flight)
            missing_bytes = await run(partial(self._missing_bytes, image), flight)
        return ArtifactEstimate(
            image.digest, missing_bytes, missing_bytes + unpacked_estimate(image.size_bytes)
        )

    def _missing_bytes(self, image: ResolvedImage) -> int:
        return sum(self.store.missing_bytes(digest, size) for digest, size in image.blobs.items())

    def _fetch(
        self, uri: str, image: ResolvedImage, into: Path, meter: Meter, flight: Flight
    ) -> FetchedArtifact:
        self._require_room(image, into)
        meter.begin(image.size_bytes)
        opener = BlobOpener(self.client, image.reference, uri)
        try:
            try:
                return self._unpack(uri, image, into, meter, flight, opener)
            except _Stale:  # forgotten by now
                _empty(into)
                meter.restart()
                return self._unpack(uri, image, into, meter, flight, opener)
        finally:
            self.store.trim()

    def _require_room(self, image: ResolvedImage, into: Path) -> None:
        """Refuse before the first byte what cannot fit; old blobs make room first."""
        room = Room(into, self.floor_bytes)
        # Content is hardly smaller than it is stored; the floor tells the rest while it is written.
        wanted_bytes = self._missing_bytes(image) + image.size_bytes
        lacking_bytes = wanted_bytes + self.floor_bytes - room.free_bytes()
        if lacking_bytes > 0:
            self.store.trim(room_bytes=lacking_bytes)
        room.require(wanted_bytes, "the image")

    def _unpack(
        self, uri: str, image: ResolvedImage, into: Path, meter: Meter, flight: Flight, opener: BlobOpener
    ) -> FetchedArtifact:
        with self._opened(image) as blobs, flight.branch() as branch:
            remotes = {
                digest: RemoteBlob(
                    blob, partial(opener.open, digest, branch), f"layer {number} of {len(blobs)}"
                )
                for number, (digest, blob) in enumerate(blobs.items(), start=1)
            }
            downloads = Downloads(
                tuple(remotes.values()),
                branch,
                self.client.patience,
                self.connections,
                self.floor_bytes,
                self.client.web.stall_s,
                uri,
            )
            meter.is_downloaded = lambda: downloads.is_done
            tree = TreeBuilder(into, uri, self.limits, branch.check, Room(into, self.floor_bytes))
            with downloads.running():
                for layer in image.layers:
                    self._apply(remotes[layer.digest], tree, meter, branch, uri)
                tree.finish()
            return FetchedArtifact(image.digest, tree.size_bytes, downloads.downloaded_bytes)

    def _apply(self, remote: RemoteBlob, tree: TreeBuilder, meter: Meter, flight: Flight, uri: str) -> None:
        blob, reader = remote.blob, BlobReader(remote.blob, flight)
        try:
            apply_layer(CountingReader(reader, meter), tree, digest=blob.digest, what=remote.what, uri=uri)
        except ArtifactInvalid:
            # Content whose digest is right stays wrong however often it is fetched.
            is_stale = blob.found_bytes > 0 and not is_intact(blob)
            self.store.discard(blob, reader.edition)
            if is_stale:
                log.warning("blob was damaged and is fetched anew: path=%s", blob.path)
                raise _Stale from None
            raise
        self.store.seal(blob)

    @contextmanager
    def _opened(self, image: ResolvedImage) -> Iterator[dict[str, SharedBlob]]:
        with ExitStack() as stack:
            blobs = {}
            for digest, size_bytes in image.blobs.items():
                try:
                    blob = blobs[digest] = self.store.open(digest, size_bytes)
                except OSError as error:
                    raise unwritable(self.store.root, error) from error
                stack.callback(self.store.close, blob)
            yield blobs


class _Stale(Exception):
    """Bytes from before turned out to be damaged."""


def _empty(directory: Path) -> None:
    try:
        for path in directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise unwritable(directory, error) from error
