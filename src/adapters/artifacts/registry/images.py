"""Images in registries: `oci://...`, `quay.io/...`, `namespace/name:tag`."""

from dataclasses import dataclass, field

from ....domain.ports.artifacts import ArtifactEstimate, FetchedArtifact
from ..blobs.fetch import BlobFetcher, BlobJob, OpenBlobs
from ..blobs.room import Room
from ..image_manifest import host_platform
from ..layers import apply_layer
from ..progress import CountingReader, unpacked_estimate
from ..tree import TreeBuilder
from ..tree_limits import TreeLimits
from ..two_steps import Order, TwoSteps
from ..web.flight import Flight
from .client import RegistryClient
from .opener import BlobOpener
from .resolve import ResolvedImage, resolve


@dataclass(frozen=True)
class RegistryImages(TwoSteps[ResolvedImage]):
    """An `ArtifactSource` for images in registries.

    Layers are fetched side by side and by ranges, while those that have come are verified, decompressed
    and unpacked. What is on this node already is not fetched, and an interrupted fetch goes on where it
    ended.
    """

    client: RegistryClient
    fetcher: BlobFetcher
    limits: TreeLimits = field(default_factory=TreeLimits)
    platform: str = field(default_factory=host_platform)

    def _look(self, uri: str, flight: Flight) -> ResolvedImage:
        return resolve(self.client, uri, self.platform, flight)

    def _image_digest(self, found: ResolvedImage) -> str:
        return found.manifest_digest

    def _estimate(self, found: ResolvedImage, uri: str) -> ArtifactEstimate:
        del uri
        missing_bytes = self.fetcher.missing_bytes(found.blobs)
        disk_bytes = missing_bytes + unpacked_estimate(found.size_bytes)
        return ArtifactEstimate(found.digest, missing_bytes, disk_bytes)

    def _place(self, found: ResolvedImage, order: Order) -> FetchedArtifact:
        uri, into, meter = order.uri, order.into, order.meter
        meter.begin(found.size_bytes)

        def unpack(blobs: OpenBlobs) -> int:
            room = Room(into, self.fetcher.floor_bytes)
            tree = TreeBuilder(into, uri, self.limits, blobs.flight.check, room)
            for layer in found.layers:
                what = blobs.remotes[layer.digest].what
                with blobs.reading(layer.digest) as reader:
                    apply_layer(CountingReader(reader, meter), tree, digest=layer.digest, what=what, uri=uri)
            tree.finish()
            return tree.size_bytes

        opener = BlobOpener(self.client, found.reference, uri)
        job = BlobJob(uri, found.blobs, opener.open, unpack, into, meter)
        size_bytes, downloaded_bytes = self.fetcher.fetch(job, order.flight)
        return FetchedArtifact(found.digest, size_bytes, downloaded_bytes)
