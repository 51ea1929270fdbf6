"""Which reader a uri goes to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...domain.errors import UnsupportedSource
from ...domain.ports.artifacts import (
    Approve,
    ArtifactEstimate,
    ArtifactSource,
    FetchedArtifact,
    Report,
    approve_any,
    unreported,
)

Reader = TypeVar("Reader")


@dataclass(frozen=True)
class ArtifactReaders:
    """An `ArtifactSource` made of others: the first whose prefix a uri has reads it.

    `readers` is by uri prefix (`ocifile://`, `quay.io/`, `/`), in the order they are tried. A reader is
    made, and what it needs is loaded, when the first uri of its kind comes.
    """

    readers: Mapping[str, Callable[[], ArtifactSource]]

    async def fetch(
        self,
        uri: str,
        into: Path,
        *,
        sha256: str = "",
        approve: Approve = approve_any,
        report: Report = unreported,
    ) -> FetchedArtifact:
        reader = _reader_of(uri, self.readers)
        return await reader.fetch(uri, into, sha256=sha256, approve=approve, report=report)

    async def describe(self, uri: str) -> ArtifactEstimate:
        return await _reader_of(uri, self.readers).describe(uri)


def _reader_of(uri: str, readers: Mapping[str, Callable[[], Reader]]) -> Reader:
    for prefix, reader in readers.items():
        if uri.startswith(prefix):
            return reader()
    raise UnsupportedSource(uri, supported=tuple(readers))
