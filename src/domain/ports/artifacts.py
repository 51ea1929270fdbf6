"""Where backends come from: the payloads that galleries and requests point to."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class FetchedArtifact:
    """What a fetch put on disk.

    `digest` is `sha256:<hex>` of what the uri names: of the manifest or, where an image has several
    platforms, of the index; of an archive or program itself; "" where there is none (directories).
    `downloaded_bytes` came over the network; the rest was on this node already.
    """

    digest: str = ""
    size_bytes: int = 0
    downloaded_bytes: int = 0


class FetchPhase(StrEnum):
    """What a fetch is at, in this order. While it downloads it also unpacks what is there already."""

    RESOLVING = "resolving"
    DOWNLOADING = "downloading"
    EXTRACTING = "extracting"


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """How far a fetch is: `done_bytes` of `total_bytes` are here and unpacked.

    Both count the whole artifact as it is stored at its source (compressed); 0 of 0 while resolving, and
    for a source that does not tell its size.
    """

    phase: FetchPhase
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ArtifactEstimate:
    """What fetching would take.

    `download_bytes` have to come over the network, as far as this node does not have them already.
    `disk_bytes` is the room needed for them and the unpacked payload; an estimate where content is
    compressed. `digest` as in `FetchedArtifact`, "" where nobody knows it before the download.
    """

    digest: str = ""
    download_bytes: int = 0
    disk_bytes: int = 0


Report = Callable[[FetchProgress], None]
Approve = Callable[[str], Awaitable[None]]


def unreported(_: FetchProgress) -> None:
    """For those who do not want to know how far a fetch is."""


async def approve_any(_: str) -> None:
    """For those who have no policy."""


class ArtifactSource(Protocol):
    """Reads the payload of a backend, wherever it lies, into a directory."""

    async def fetch(
        self,
        uri: str,
        into: Path,
        *,
        sha256: str = "",
        approve: Approve = approve_any,
        report: Report = unreported,
    ) -> FetchedArtifact:
        """Unpack `uri` into the existing empty directory `into`.

        Content is verified against its digests, entries never leave `into`, and on an error `into`
        may hold rubbish: the caller removes it. `sha256` (64 hex digits, any case) must be the hash of
        an archive or program as it is stored; images and directories are not compared with it.

        `approve` is called once for an image, before anything is written, with the digest of the
        manifest that will be unpacked (never of an index); what it raises ends the fetch. Payloads
        other than images are not asked about.

        `report` is called in the event loop: at the start, then several times a second, at the end
        with everything done. Phases follow their order, `done_bytes` never falls, and `total_bytes`
        stays once it is known.

        Raises:
            UnsupportedSource: nobody reads this kind of uri.
            ArtifactMissing: its source says for certain that there is no such thing.
            ArtifactUnavailable: it cannot be reached, or not be read by us.
            ArtifactInvalid: it is broken or hostile.
            NoSpace, FileUnwritable: it does not fit.
        """

    async def describe(self, uri: str) -> ArtifactEstimate:
        """What a fetch of `uri` would take right now; nothing is written.

        Raises:
            UnsupportedSource, ArtifactMissing, ArtifactUnavailable, ArtifactInvalid: as `fetch`.
        """


# Source: sigstore/cosign specs/SIGNATURE_SPEC.md.
OLD_SIGNATURE = "application/vnd.dev.cosign.simplesigning.v1+json"


@dataclass(frozen=True, slots=True)
class AttachedArtifact:
    """Something attached to an image, like a signature: its type, and the content of its first layer."""

    artifact_type: str
    content: bytes


class ImageAttachments(Protocol):
    """Finds what others attached to images in a registry (OCI distribution 1.1, referrers)."""

    async def attached(self, uri: str, digest: str, *, artifact_type: str) -> Sequence[AttachedArtifact]:
        """What is attached to the manifest `digest` in the repository of the image `uri`.

        Only types that begin with `artifact_type`, in the order the registry lists them. Where the
        registry has no referrers API, its tag `<algorithm>-<hex>` is read instead. What older cosigns
        leave under the tag `<algorithm>-<hex>.sig` is found by its own type, OLD_SIGNATURE, alone.
        Nothing attached is no error. Contents are verified against their digests.

        Raises:
            UnsupportedSource: `uri` is no image in a registry.
            ArtifactUnavailable: the registry cannot be reached, or refuses.
            ArtifactInvalid: what is attached is broken, or larger than 4 MiB.
        """
