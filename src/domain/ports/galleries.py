"""The documents galleries are made of: where they lie, and what is written in them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class PlainText(str):
    """A YAML scalar that was written without quotes: `1.10`, `true`; null is the empty one.

    It is the text it was written as. Those who want numbers and truth values find out what it means.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class GalleryDocument:
    """What lay at a url. `version` tells it from later contents; "" where the source cannot tell."""

    content: bytes
    version: str = ""


class GalleryDocuments(Protocol):
    """Fetches documents by `http://`, `https://` and `file://`; reads and writes the YAML in them."""

    async def fetch(self, url: str, *, trusted_root: Path, known: str = "") -> GalleryDocument | None:
        """What lies at `url`; None while it is what a fetch gave as version `known`.

        `file://` urls must lie below `trusted_root` (symlinks resolved on both sides). Whoever asks
        bounds the time.

        Raises:
            ArtifactUnavailable: it cannot be fetched, or lies outside the trusted root.
            ArtifactInvalid: it is too large to be a gallery's.
            UnsupportedSource: no reader for this scheme.
        """

    async def parse(self, content: bytes, *, url: str) -> object:
        """The one YAML document in `content`: lists, dicts with text keys, and texts.

        Scalars stay the text they were written as; null is "". Merge keys and aliases are resolved.

        Raises:
            ArtifactInvalid: it is no YAML, several documents, or hostile.
        """

    async def write(self, document: object) -> bytes:
        """`document` (dicts, lists, texts, numbers, truth values, None) as YAML, keys in their order.

        Reading it gives the same document, a text that looks like a number included.
        """
