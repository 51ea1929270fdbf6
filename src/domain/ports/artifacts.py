"""Where backends come from: the payloads that galleries and requests point to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class FetchedArtifact:
    """What a fetch put on disk. `digest` is `sha256:<hex>` of the image manifest, "" where there is none."""

    digest: str = ""
    size_bytes: int = 0


class ArtifactSource(Protocol):
    """Reads the payload of a backend, wherever it lies, into a directory."""

    async def fetch(self, uri: str, into: Path) -> FetchedArtifact:
        """Unpack `uri` into the existing empty directory `into`.

        Content is verified against its digests, entries never leave `into`, and on an error `into`
        may hold rubbish: the caller removes it.

        Raises:
            UnsupportedSource: nobody reads this kind of uri.
            ArtifactUnavailable: it cannot be found or reached.
            ArtifactInvalid: it is broken or hostile.
            NoSpace, FileUnwritable: it does not fit.
        """
