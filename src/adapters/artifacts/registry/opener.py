"""Asking for the same blob again and again, by ranges."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ....domain.image_reference import ImageReference
from ..web.client import Answer, WebFailure
from ..web.flight import Flight
from .client import RegistryClient


@dataclass
class BlobOpener:
    """Opens blobs of one repository.

    Registries send us on to a blob store, with a URL that works for a while: it is used for the next ranges
    as long as it does, without asking the registry each time.
    """

    client: RegistryClient
    reference: ImageReference
    uri: str
    _direct: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def open(self, digest: str, flight: Flight, headers: Mapping[str, str]) -> Iterator[Answer]:
        """The answer to one request for the blob `digest`."""
        direct = self._direct.get(digest)
        if direct is not None:
            try:
                with self.client.web.get(direct, flight, headers=headers) as answer:
                    if answer.status in {200, 206}:
                        yield answer
                        return
            except WebFailure:
                self._direct.pop(digest, None)
                raise
            self._direct.pop(digest, None)  # it has expired
        with self.client.open_blob(self.reference, digest, headers, flight, uri=self.uri) as answer:
            if answer.status in {200, 206} and self._leads_away(answer.url, digest):
                self._direct[digest] = answer.url
            yield answer

    def _leads_away(self, url: str, digest: str) -> bool:
        parts = urlsplit(url)
        own = self.client.host_of(self.reference)
        return (parts.netloc, parts.path) != (own, f"/v2/{self.reference.repository}/blobs/{digest}")
