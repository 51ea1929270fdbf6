"""Galleries in memory, for tests of code that installs backends and for the simulator."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anyio.lowlevel import checkpoint

from ...domain.errors import ArtifactInvalid, ArtifactUnavailable, UnsupportedSource
from ...domain.ports.galleries import GalleryDocument, PlainText


@dataclass
class InMemoryGalleries:
    """`GalleryDocuments` by url: an index is a list of entries, any other document bytes.

    The documents are JSON, which is YAML, with numbers and truth values as the texts they are written as.
    The trusted root means nothing here. Urls of a kind that no document has are unsupported, not missing.
    """

    indexes: dict[str, Sequence[object] | bytes] = field(default_factory=dict)
    offline: bool = False

    async def fetch(self, url: str, *, trusted_root: Path, known: str = "") -> GalleryDocument | None:
        del trusted_root
        await checkpoint()
        if self.offline:
            raise ArtifactUnavailable(url, "the in-memory source is set offline")
        if url not in self.indexes:
            raise _absent(url, self.indexes)
        stored = self.indexes[url]
        content = stored if isinstance(stored, bytes) else json.dumps(list(stored)).encode()
        version = hashlib.sha256(content).hexdigest()
        return None if version == known else GalleryDocument(content, version)

    async def parse(self, content: bytes, *, url: str) -> object:
        await checkpoint()
        try:
            return _as_texts(json.loads(content, parse_int=PlainText, parse_float=PlainText))
        except (ValueError, RecursionError) as error:
            raise ArtifactInvalid(url, f"it is no JSON: {error}") from error

    async def write(self, document: object) -> bytes:
        await checkpoint()
        return json.dumps(document).encode()


def _as_texts(value: object) -> object:
    match value:
        case dict():
            return {key: _as_texts(each) for key, each in value.items()}
        case list():
            return [_as_texts(each) for each in value]
        case bool():
            return PlainText(str(value).lower())
        case None:
            return PlainText()
        case _:
            return value


def _absent(url: str, stored: Iterable[str]) -> ArtifactUnavailable | UnsupportedSource:
    kinds = sorted({_kind_of(known) for known in stored})
    if kinds and _kind_of(url) not in kinds:
        return UnsupportedSource(url, supported=tuple(kinds))
    return ArtifactUnavailable(url, "nothing is stored under it")


def _kind_of(url: str) -> str:
    """What tells one reader's urls from another's."""
    scheme, separator, _ = url.partition("://")
    return scheme + separator if separator else url.partition("/")[0] + "/"
