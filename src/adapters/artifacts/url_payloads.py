"""Archives and programs by URL: `https://...`."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ...domain.errors import ArtifactInvalid, ArtifactMissing, ArtifactUnavailable
from ...domain.ports.artifacts import ArtifactEstimate, FetchedArtifact
from .blobs.fetch import BlobFetcher, BlobJob, OpenBlobs
from .blobs.room import Room
from .payloads import place_payload, sha256_digest
from .progress import CountingReader, unpacked_estimate
from .streams import ByteReader
from .tree import TreeBuilder
from .tree_limits import TreeLimits
from .two_steps import Order, TwoSteps
from .web.client import Answer, WebClient, WebFailure
from .web.flight import Flight
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
class UrlPayloads(TwoSteps[_Offer]):
    """An `ArtifactSource` for tar archives and programs on web servers.

    Fetched like the layers of an image where the server tells the size: over several connections if it
    knows ranges, and resumed if it says which version it offers or the hash is known; else in one go.
    """

    web: WebClient
    fetcher: BlobFetcher
    limits: TreeLimits = field(default_factory=TreeLimits)

    def _look(self, uri: str, flight: Flight) -> _Offer:
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

    def _estimate(self, found: _Offer, uri: str) -> ArtifactEstimate:
        size_bytes = found.size_bytes or 0
        missing_bytes = self.fetcher.missing_bytes({found.key(uri): size_bytes})
        return ArtifactEstimate("", missing_bytes, missing_bytes + unpacked_estimate(size_bytes))

    def _place(self, found: _Offer, order: Order) -> FetchedArtifact:
        digest = sha256_digest(order.uri, order.sha256)
        order.meter.begin(found.size_bytes or 0)
        # Without a hash or a version nobody could tell bytes of today from those of yesterday.
        if found.size_bytes is not None and (digest or found.version):
            return self._fetch(found.size_bytes, found, digest, order)
        return self._stream(found, digest, order)

    def _fetch(self, size_bytes: int, offer: _Offer, digest: str, order: Order) -> FetchedArtifact:
        uri = order.uri
        key = digest or offer.key(uri)

        def place(blobs: OpenBlobs) -> FetchedArtifact:
            with blobs.reading(key) as reader:
                return self._unpack(reader, digest, order, blobs.flight)

        @contextmanager
        def ask(_: str, branch: Flight, headers: Mapping[str, str]) -> Iterator[Answer]:
            with self.web.get(uri, branch, headers=headers) as answer:
                if answer.status in {200, 206} and _version(answer) != offer.version:
                    raise ArtifactUnavailable(uri, "it changed while it was fetched; try again")
                yield answer

        job = BlobJob(uri, {key: size_bytes}, ask, place, order.into, order.meter, part=_WHAT)
        placed, downloaded_bytes = self.fetcher.fetch(job, order.flight)
        return FetchedArtifact(placed.digest, placed.size_bytes, downloaded_bytes)

    def _stream(self, offer: _Offer, digest: str, order: Order) -> FetchedArtifact:
        """Read a payload in one go; what breaks off begins again with the next fetch."""
        uri, flight = order.uri, order.flight
        Room(order.into, self.fetcher.floor_bytes).require(offer.size_bytes or 0, _WHAT)
        try:
            with self.web.get(uri, flight) as answer:
                _require_ok(answer, uri)
                source = _Bounded(answer, self.limits.total_bytes, uri)
                placed = self._unpack(source, digest, order, flight)
        except WebFailure as failure:
            raise ArtifactUnavailable(uri, str(failure)) from failure
        return FetchedArtifact(placed.digest, placed.size_bytes, source.read_bytes)

    def _unpack(self, source: ByteReader, digest: str, order: Order, flight: Flight) -> FetchedArtifact:
        room = Room(order.into, self.fetcher.floor_bytes)
        tree = TreeBuilder(order.into, order.uri, self.limits, flight.check, room)
        counted = CountingReader(source, order.meter)
        found = place_payload(counted, tree, digest=digest, what=_WHAT, uri=order.uri)
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
