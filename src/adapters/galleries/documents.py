"""Gallery documents wherever they lie, and the YAML in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anyio import to_thread

from ...domain.errors import UnsupportedSource
from ...domain.ports.galleries import GalleryDocument


class DocumentFetcher(Protocol):
    """Fetches documents of one kind; see `GalleryDocuments.fetch`."""

    async def fetch(self, url: str, *, trusted_root: Path, known: str = "") -> GalleryDocument | None:
        """The document, or None while it is the `known` one."""


@dataclass(frozen=True)
class GalleryDocumentReaders:
    """`GalleryDocuments` of several kinds, by url prefix in the order they are tried; made when needed."""

    fetchers: Mapping[str, Callable[[], DocumentFetcher]]

    async def fetch(self, url: str, *, trusted_root: Path, known: str = "") -> GalleryDocument | None:
        for prefix, fetcher in self.fetchers.items():
            if url.startswith(prefix):
                return await fetcher().fetch(url, trusted_root=trusted_root, known=known)
        raise UnsupportedSource(url, supported=tuple(self.fetchers))

    async def parse(self, content: bytes, *, url: str) -> object:
        return await to_thread.run_sync(_parse, content, url)

    async def write(self, document: object) -> bytes:
        from .yaml_writer import write_yaml

        return write_yaml(document)


def _parse(content: bytes, url: str) -> object:
    from .yaml_text import parse_yaml  # late: a worker that reads no gallery need not load PyYAML

    return parse_yaml(content, uri=url)
