"""Images saved to a local file: `ocifile://<path>`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ...domain.errors import ArtifactInvalid
from ...domain.ports.artifacts import ArtifactEstimate, FetchedArtifact, FetchPhase
from .blobs.room import Room
from .image_archive import ArchivedImage, ImageArchive
from .image_manifest import host_platform
from .layers import apply_layer
from .local_file import absolute_path, open_regular
from .progress import CountingReader, unpacked_estimate
from .tree import TreeBuilder
from .tree_limits import TreeLimits
from .two_steps import Order, TwoSteps
from .web.flight import Flight

SCHEME = "ocifile://"


@dataclass(frozen=True)
class ImageFiles(TwoSteps[ArchivedImage]):
    """An `ArtifactSource` for the tar files that `docker save` and OCI tools write, one image in each.

    An image vouches for itself: a hash of the file is not looked at.
    Source of the scheme: LocalAI pkg/oci/image.go, which reads the docker form only.
    """

    limits: TreeLimits = field(default_factory=TreeLimits)
    platform: str = field(default_factory=host_platform)
    floor_bytes: int = 0  # of the disk that stay free

    def _look(self, uri: str, flight: Flight) -> ArchivedImage:
        with _opened(uri, flight) as archive:
            image = archive.image(self.platform)
        if not image.layers:
            raise ArtifactInvalid(uri, "an image without layers")
        return image

    def _image_digest(self, found: ArchivedImage) -> str:
        return found.digest

    def _estimate(self, found: ArchivedImage, uri: str) -> ArtifactEstimate:
        del uri
        return ArtifactEstimate(found.digest, disk_bytes=unpacked_estimate(found.size_bytes))

    def _place(self, found: ArchivedImage, order: Order) -> FetchedArtifact:
        uri, flight, meter = order.uri, order.flight, order.meter
        room = Room(order.into, self.floor_bytes)
        room.require(found.size_bytes, "the image")
        meter.begin(found.size_bytes, FetchPhase.EXTRACTING)
        with _opened(uri, flight) as archive:
            tree = TreeBuilder(order.into, uri, self.limits, flight.check, room)
            for number, layer in enumerate(found.layers, start=1):
                apply_layer(
                    CountingReader(archive.open(layer.name), meter),
                    tree,
                    digest=layer.digest,
                    diff_id=layer.diff_id,
                    what=f"layer {number} of {len(found.layers)}",
                    uri=uri,
                )
            tree.finish()
        return FetchedArtifact(digest=found.digest, size_bytes=tree.size_bytes)


@contextmanager
def _opened(uri: str, flight: Flight) -> Iterator[ImageArchive]:
    with open_regular(absolute_path(uri, SCHEME, like="image.tar"), uri) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        yield ImageArchive(file, size_bytes, uri=uri, check_cancelled=flight.check)
