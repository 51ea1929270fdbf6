"""Images in registries: `oci://...`, `quay.io/...`, `namespace/name:tag`."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ....domain.ports.artifacts import (
    Approve,
    ArtifactEstimate,
    FetchedArtifact,
    Report,
    approve_any,
    unreported,
)
from ..blobs.fetch import BlobFetcher, BlobJob, OpenBlobs
from ..blobs.room import Room
from ..image_manifest import host_platform
from ..layers import apply_layer
from ..progress import CountingReader, Meter, reporting, unpacked_estimate
from ..tree import TreeBuilder
from ..tree_limits import TreeLimits
from ..web.flight import Flight, in_flight, run
from .client import RegistryClient
from .opener import BlobOpener
from .resolve import ResolvedImage, resolve


@dataclass(frozen=True)
class RegistryImages:
    """An `ArtifactSource` for images in registries.

    Layers are fetched side by side and by ranges, while those that have come are verified, decompressed
    and unpacked. What is on this node already is not fetched, and an interrupted fetch goes on where it
    ended.
    """

    client: RegistryClient
    fetcher: BlobFetcher
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
            missing_bytes = await run(partial(self.fetcher.missing_bytes, image.blobs), flight)
        disk_bytes = missing_bytes + unpacked_estimate(image.size_bytes)
        return ArtifactEstimate(image.digest, missing_bytes, disk_bytes)

    def _fetch(
        self, uri: str, image: ResolvedImage, into: Path, meter: Meter, flight: Flight
    ) -> FetchedArtifact:
        meter.begin(image.size_bytes)

        def unpack(blobs: OpenBlobs) -> int:
            room = Room(into, self.fetcher.floor_bytes)
            tree = TreeBuilder(into, uri, self.limits, blobs.flight.check, room)
            for layer in image.layers:
                what = blobs.remotes[layer.digest].what
                with blobs.reading(layer.digest) as reader:
                    apply_layer(CountingReader(reader, meter), tree, digest=layer.digest, what=what, uri=uri)
            tree.finish()
            return tree.size_bytes

        opener = BlobOpener(self.client, image.reference, uri)
        job = BlobJob(uri, image.blobs, opener.open, unpack, into, meter)
        size_bytes, downloaded_bytes = self.fetcher.fetch(job, flight)
        return FetchedArtifact(image.digest, size_bytes, downloaded_bytes)
