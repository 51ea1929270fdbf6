"""What lies on this node: `/path/to/it`, `file:///path/to/it`."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from ...domain.ports.artifacts import ArtifactEstimate, FetchedArtifact, FetchPhase
from .blobs.room import Room
from .local_directory import LocalTree, copy_tree, look_at_tree
from .local_file import absolute_path, open_regular
from .payloads import place_payload, sha256_digest
from .progress import CountingReader, unpacked_estimate
from .streams import FileSection
from .tree import TreeBuilder
from .tree_limits import TreeLimits
from .two_steps import Order, TwoSteps
from .web.flight import Flight

SCHEME = "file://"


@dataclass(frozen=True)
class FilePayloads(TwoSteps[LocalTree | int]):
    """An `ArtifactSource` for absolute paths: directories are copied, archives unpacked, programs taken.

    Nobody signs what lies here.
    """

    limits: TreeLimits = field(default_factory=TreeLimits)
    floor_bytes: int = 0  # of the disk that stay free

    def _look(self, uri: str, flight: Flight) -> LocalTree | int:
        """A directory, or the size of a file."""
        path = _path(uri)
        if os.path.isdir(path):  # noqa: PTH112 - a NUL is no error here
            return look_at_tree(path, uri, flight)
        with open_regular(path, uri) as file:
            return os.fstat(file.fileno()).st_size

    def _estimate(self, found: LocalTree | int, uri: str) -> ArtifactEstimate:
        del uri
        disk_bytes = found.size_bytes if isinstance(found, LocalTree) else unpacked_estimate(found)
        return ArtifactEstimate(disk_bytes=disk_bytes)

    def _place(self, found: LocalTree | int, order: Order) -> FetchedArtifact:
        if isinstance(found, LocalTree):
            return copy_tree(found, order, self.limits, self.floor_bytes)
        uri, flight, meter = order.uri, order.flight, order.meter
        digest = sha256_digest(uri, order.sha256)
        with open_regular(_path(uri), uri) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            room = Room(order.into, self.floor_bytes)
            room.require(size_bytes, "the payload")
            meter.begin(size_bytes, FetchPhase.EXTRACTING)
            tree = TreeBuilder(order.into, uri, self.limits, flight.check, room)
            content = FileSection(file, 0, size_bytes, uri=uri, check_cancelled=flight.check)
            placed = place_payload(CountingReader(content, meter), tree, digest=digest, uri=uri)
        return FetchedArtifact(placed, tree.size_bytes)


def _path(uri: str) -> Path:
    return absolute_path(uri, SCHEME, like="payload")
