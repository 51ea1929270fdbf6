"""Which reader a uri goes to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...domain.errors import UnsupportedSource
from ...domain.image_reference import names_image
from ...domain.ports.artifacts import (
    Approve,
    ArtifactEstimate,
    ArtifactSource,
    FetchedArtifact,
    Report,
    approve_any,
    unreported,
)

_IMAGE_FORMS = ("oci://host/name:tag", "host/name:tag", "namespace/name:tag")


@dataclass(frozen=True)
class ArtifactReaders:
    """An `ArtifactSource` made of others: the first whose prefix a uri has reads it.

    `readers` is by uri prefix (`ocifile://`, `quay.io/`, `/`), in the order they are tried. A reader is
    made, and what it needs is loaded, when the first uri of its kind comes. `images` reads what has none of
    the prefixes and names an image in a registry.
    """

    readers: Mapping[str, Callable[[], ArtifactSource]]
    images: Callable[[], ArtifactSource] | None = None

    async def fetch(
        self,
        uri: str,
        into: Path,
        *,
        sha256: str = "",
        approve: Approve = approve_any,
        report: Report = unreported,
    ) -> FetchedArtifact:
        reader = self._reader_of(uri)
        return await reader.fetch(uri, into, sha256=sha256, approve=approve, report=report)

    async def describe(self, uri: str) -> ArtifactEstimate:
        return await self._reader_of(uri).describe(uri)

    def _reader_of(self, uri: str) -> ArtifactSource:
        for prefix, reader in self.readers.items():
            if uri.startswith(prefix):
                return reader()
        if self.images is not None and names_image(uri):
            return self.images()
        images = () if self.images is None else _IMAGE_FORMS
        raise UnsupportedSource(uri, supported=(*images, *self.readers))
