"""Archives and programs by URL: `https://...`."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ...domain.errors import ArtifactInvalid, ArtifactMissing, ArtifactUnavailable
from ...domain.ports.artifacts import (
    Approve,
    ArtifactEstimate,
    FetchedArtifact,
    Report,
    approve_any,
    unreported,
)
from .blobs.fetch import BlobFetcher, BlobJob, OpenBlobs
from .blobs.room import Room
from .payloads import place_payload, sha256_digest
from .progress import CountingReader, Meter, reporting, unpacked_estimate
from .tree import TreeBuilder
from .tree_limits import TreeLimits
from .web.client import Answer, WebClient, WebFailure
from .web.flight import Flight, in_flight, run
from .web.patience import require_lasting

_WHAT = "the download"
_MISSING = frozenset({404, 410})


@dataclass(frozen=True, slots=True)
class _Offer:
    """What a server says of a payload. `version` changes with the content; "" where it does not say."""

    size_bytes: int | None
    version: str

    def key(self, uri: str) -> str:
        """What its blob is called as long as its digest is not known."""
        named = f"{uri}\0{self.version}\0{self.size_bytes}".encode()
        return f"url:{hashlib.sha256(named).hexdigest()}"


@dataclass(frozen=True)
class UrlPayloads:
    """An `ArtifactSource` for tar archives and programs on web servers.

    Fetched like the layers of an image where the server tells the size: over several connections if it
    knows ranges, and resumed if it says which version it offers or the hash is known; else in one go.
    """

    web: WebClient
    fetcher: BlobFetcher
    limits: TreeLimits = field(default_factory=TreeLimits)

    async def fetch(
        self,
        uri: str,
        into: Path,
        *,
        sha256: str = "",
        approve: Approve = approve_any,
        report: Report = unreported,
    ) -> FetchedArtifact:
        del approve  # nobody signs archives
        digest = sha256_digest(uri, sha256)
        async with reporting(report) as meter, in_flight() as flight:
            offer = await run(partial(self._ask, uri, flight), flight)
            # Without a hash or a version nobody could tell bytes of today from those of yesterday.
            is_resumable = offer.size_bytes is not None and (digest or offer.version)
            fetch = self._fetch if is_resumable else self._stream
            return await run(partial(fetch, uri, offer, digest, into, meter, flight), flight)

    async def describe(self, uri: str) -> ArtifactEstimate:
        async with in_flight() as flight:
            offer = await run(partial(self._ask, uri, flight), flight)
            size_bytes = offer.size_bytes or 0
            missing_bytes = await run(
                partial(self.fetcher.missing_bytes, {offer.key(uri): size_bytes}), flight
            )
        return ArtifactEstimate("", missing_bytes, missing_bytes + unpacked_estimate(size_bytes))

    def _ask(self, uri: str, flight: Flight) -> _Offer:
        """One byte is asked for: HEAD is refused by servers that sign their URLs."""

        def ask() -> _Offer:
            with self.web.get(uri, flight, headers={"Range": "bytes=0-0"}) as answer:
                if answer.status == 416:  # there is no first byte
                    raise ArtifactInvalid(uri, "it is empty")
                _require_ok(answer, uri)
                size = answer.headers.get("content-length", "")
                if answer.status == 206:
                    size = answer.headers.get("content-range", "").rpartition("/")[2]
                return _Offer(int(size) if size.isdigit() else None, _version(answer))

        try:
            return self.fetcher.patience.persist(ask, flight)
        except WebFailure as failure:
            raise ArtifactUnavailable(uri, str(failure)) from failure

    def _fetch(
        self, uri: str, offer: _Offer, digest: str, into: Path, meter: Meter, flight: Flight
    ) -> FetchedArtifact:
        assert offer.size_bytes is not None
        key = digest or offer.key(uri)
        meter.begin(offer.size_bytes)

        def place(blobs: OpenBlobs) -> FetchedArtifact:
            with blobs.reading(key) as reader:
                return self._place(CountingReader(reader, meter), uri, digest, into, blobs.flight)

        @contextmanager
        def ask(_: str, branch: Flight, headers: Mapping[str, str]) -> Iterator[Answer]:
            with self.web.get(uri, branch, headers=headers) as answer:
                if answer.status in {200, 206} and _version(answer) != offer.version:
                    raise ArtifactUnavailable(uri, "it changed while it was fetched; try again")
                yield answer

        job = BlobJob(uri, {key: offer.size_bytes}, ask, place, into, meter, part=_WHAT)
        placed, downloaded_bytes = self.fetcher.fetch(job, flight)
        return FetchedArtifact(placed.digest, placed.size_bytes, downloaded_bytes)

    def _stream(
        self, uri: str, offer: _Offer, digest: str, into: Path, meter: Meter, flight: Flight
    ) -> FetchedArtifact:
        """Read a payload in one go; what breaks off begins again with the next fetch."""
        meter.begin(offer.size_bytes or 0)
        Room(into, self.fetcher.floor_bytes).require(offer.size_bytes or 0, _WHAT)
        try:
            with self.web.get(uri, flight) as answer:
                _require_ok(answer, uri)
                source = _Bounded(answer, self.limits.total_bytes, uri)
                placed = self._place(CountingReader(source, meter), uri, digest, into, flight)
        except WebFailure as failure:
            raise ArtifactUnavailable(uri, str(failure)) from failure
        return FetchedArtifact(placed.digest, placed.size_bytes, source.read_bytes)

    def _place(
        self, source: CountingReader, uri: str, digest: str, into: Path, flight: Flight
    ) -> FetchedArtifact:
        room = Room(into, self.fetcher.floor_bytes)
        tree = TreeBuilder(into, uri, self.limits, flight.check, room)
        found = place_payload(source, tree, digest=digest, what=_WHAT, uri=uri)
        return FetchedArtifact(found, tree.size_bytes)


class _Bounded:
    """An answer that may have no length, and must not go on for ever."""

    def __init__(self, answer: Answer, limit_bytes: int, uri: str) -> None:
        self._answer = answer
        self._limit_bytes = limit_bytes
        self._uri = uri
        self.read_bytes = 0

    def read(self, size: int, /) -> bytes:
        chunk = self._answer.read(size)
        self.read_bytes += len(chunk)
        if self.read_bytes > self._limit_bytes:
            raise ArtifactInvalid(self._uri, "it does not end within LOCALAI_WORKER_BACKEND_SIZE_LIMIT")
        return chunk


def _version(answer: Answer) -> str:
    etag = answer.headers.get("etag", "")
    return etag or answer.headers.get("last-modified", "")


def _require_ok(answer: Answer, uri: str) -> None:
    require_lasting(answer, "the server")
    if answer.status in _MISSING:
        raise ArtifactMissing(uri, f"the server answers {answer.status}")
    if answer.status not in {200, 206}:
        raise ArtifactUnavailable(uri, f"the server answers {answer.status}")
