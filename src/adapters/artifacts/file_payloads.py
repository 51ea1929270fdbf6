"""What lies on this node: `/path/to/it`, `file:///path/to/it`."""

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

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
from .local_directory import LocalDirectories
from .local_file import absolute_path, open_regular
from .payloads import place_payload, sha256_digest
from .progress import CountingReader, Meter, reporting, unpacked_estimate
from .streams import FileSection
from .tree import TreeBuilder
from .tree_limits import TreeLimits
from .web.flight import Flight, in_flight, run

SCHEME = "file://"


@dataclass(frozen=True)
class FilePayloads:
    """An `ArtifactSource` for absolute paths: directories are copied, archives unpacked, programs taken."""

    limits: TreeLimits = field(default_factory=TreeLimits)
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
        del approve  # nobody signs what lies here
        path = absolute_path(uri, SCHEME, like="payload")
        async with in_flight() as flight:
            if await run(lambda: os.path.isdir(path), flight):  # noqa: PTH112 - a NUL is no error here
                return await self._directories.fetch(str(path), into, report=report)
            digest = sha256_digest(uri, sha256)
            async with reporting(report) as meter:
                return await run(partial(self._fetch, uri, path, digest, into, meter, flight), flight)

    async def describe(self, uri: str) -> ArtifactEstimate:
        path = absolute_path(uri, SCHEME, like="payload")
        async with in_flight() as flight:
            if await run(lambda: os.path.isdir(path), flight):  # noqa: PTH112 - as above
                return await self._directories.describe(str(path))
            return await run(partial(_describe, uri, path), flight)

    @property
    def _directories(self) -> LocalDirectories:
        return LocalDirectories(self.limits, self.floor_bytes)

    def _fetch(
        self, uri: str, path: Path, digest: str, into: Path, meter: Meter, flight: Flight
    ) -> FetchedArtifact:
        with open_regular(path, uri) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            room = Room(into, self.floor_bytes)
            room.require(size_bytes, "the payload")
            meter.begin(size_bytes, FetchPhase.EXTRACTING)
            tree = TreeBuilder(into, uri, self.limits, flight.check, room)
            content = FileSection(file, 0, size_bytes, uri=uri, check_cancelled=flight.check)
            found = place_payload(CountingReader(content, meter), tree, digest=digest, uri=uri)
        return FetchedArtifact(found, tree.size_bytes)


def _describe(uri: str, path: Path) -> ArtifactEstimate:
    with open_regular(path, uri) as file:
        return ArtifactEstimate(disk_bytes=unpacked_estimate(os.fstat(file.fileno()).st_size))
