"""Images saved to a local file: `ocifile://<path>`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ...domain.errors import ArtifactInvalid
from ...domain.ports.artifacts import (
    Approve,
    ArtifactEstimate,
    FetchedArtifact,
    FetchPhase,
    Report,
    approve_any,
    unreported,
)
from .blobs.room import Room
from .image_archive import ArchivedImage, ImageArchive
from .image_manifest import host_platform
from .layers import apply_layer
from .local_file import absolute_path, open_regular
from .progress import CountingReader, Meter, reporting, unpacked_estimate
from .tree import TreeBuilder
from .tree_limits import TreeLimits
from .web.flight import Flight, in_flight, run

SCHEME = "ocifile://"


@dataclass(frozen=True)
class ImageFiles:
    """An `ArtifactSource` for the tar files that `docker save` and OCI tools write, one image in each.

    Work runs in a worker thread, and notices a cancellation within one chunk or entry.
    Source of the scheme: LocalAI pkg/oci/image.go, which reads the docker form only.
    """

    limits: TreeLimits = field(default_factory=TreeLimits)
    platform: str = field(default_factory=host_platform)
    floor_bytes: int = 0  # of the disk that stay free

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
            image = await run(partial(self._image, uri, flight), flight)
            await approve(image.digest)
            meter.begin(image.size_bytes, FetchPhase.EXTRACTING)
            return await run(partial(self._unpack, uri, image, into, meter, flight), flight)

    async def describe(self, uri: str) -> ArtifactEstimate:
        async with in_flight() as flight:
            image = await run(partial(self._image, uri, flight), flight)
        return ArtifactEstimate(image.digest, disk_bytes=unpacked_estimate(image.size_bytes))

    def _image(self, uri: str, flight: Flight) -> ArchivedImage:
        with _opened(uri, flight) as archive:
            image = archive.image(self.platform)
        if not image.layers:
            raise ArtifactInvalid(uri, "an image without layers")
        return image

    def _unpack(
        self, uri: str, image: ArchivedImage, into: Path, meter: Meter, flight: Flight
    ) -> FetchedArtifact:
        room = Room(into, self.floor_bytes)
        room.require(image.size_bytes, "the image")
        with _opened(uri, flight) as archive:
            tree = TreeBuilder(into, uri, self.limits, flight.check, room)
            for number, layer in enumerate(image.layers, start=1):
                apply_layer(
                    CountingReader(archive.open(layer.name), meter),
                    tree,
                    digest=layer.digest,
                    diff_id=layer.diff_id,
                    what=f"layer {number} of {len(image.layers)}",
                    uri=uri,
                )
            tree.finish()
        return FetchedArtifact(digest=image.digest, size_bytes=tree.size_bytes)


@contextmanager
def _opened(uri: str, flight: Flight) -> Iterator[ImageArchive]:
    with open_regular(absolute_path(uri, SCHEME, like="image.tar"), uri) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        yield ImageArchive(file, size_bytes, uri=uri, check_cancelled=flight.check)
