"""Having blobs: those that are missing are downloaded while the first ones are read."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from ....domain.errors import ArtifactInvalid
from ..filing import unwritable
from ..progress import Meter
from ..web.client import Answer
from ..web.flight import Flight
from ..web.patience import Patience
from .download import Downloads, RemoteBlob
from .reader import BlobReader, digest_held
from .room import Room
from .shared_blob import SharedBlob
from .store import BlobStore

log = logging.getLogger(__name__)

Placed = TypeVar("Placed")


class _Stale(Exception):
    """Bytes from before turned out to be damaged; they are forgotten by now."""


@dataclass(frozen=True)
class OpenBlobs:
    """The blobs of one artifact, to be read in any order while they come in."""

    remotes: Mapping[str, RemoteBlob]
    store: BlobStore
    flight: Flight

    @contextmanager
    def reading(self, digest: str) -> Iterator[BlobReader]:
        """A blob from its front. It is kept if the block ends well, having read and verified all of it.

        ArtifactInvalid from the block drops it: bytes that were there before are then fetched once more.
        """
        remote = self.remotes[digest]
        blob = remote.blob
        reader = BlobReader(blob, self.flight)
        try:
            yield reader
        except ArtifactInvalid as error:
            # Content whose digest is right stays wrong however often it is fetched.
            held = digest_held(blob)
            is_stale = blob.found_bytes > 0 and held != digest
            self.store.discard(blob, reader.edition)
            if is_stale:
                log.warning("blob was damaged and is fetched anew: path=%s", blob.path)
                raise _Stale from None
            if held not in {"", digest}:  # whatever else is wrong follows from that
                raise ArtifactInvalid(error.uri, f"{remote.what} is {held}, should be {digest}") from error
            raise
        self.store.seal(blob)


@dataclass(frozen=True)
class BlobJob(Generic[Placed]):
    """An artifact to have: its blobs by digest with their sizes, the first needed first.

    `open` asks the source for one of them, `place` puts them into the directory `into`, and says what
    came of it.
    """

    uri: str
    sizes: Mapping[str, int]
    open: Callable[[str, Flight, Mapping[str, str]], AbstractContextManager[Answer]]
    place: Callable[[OpenBlobs], Placed]
    into: Path
    meter: Meter
    part: str = "layer"  # what messages call a blob


@dataclass(frozen=True)
class BlobFetcher:
    """Fetches blobs into `store` over `connections` at most; `floor_bytes` of the disk stay free."""

    store: BlobStore
    patience: Patience
    stall_s: float
    floor_bytes: int
    connections: int

    def fetch(self, job: BlobJob[Placed], flight: Flight) -> tuple[Placed, int]:
        """What `job.place` says, and how many bytes were downloaded for it. Blocks.

        Raises:
            ArtifactUnavailable, ArtifactInvalid, NoSpace, FileUnwritable: as `ArtifactSource.fetch`.
            FetchCut: the flight is over.
        """
        self._require_room(job)
        try:
            try:
                return self._fetch(job, flight)
            except _Stale:
                _empty(job.into)
                job.meter.restart()
                return self._fetch(job, flight)
        finally:
            self.store.trim()

    def missing_bytes(self, sizes: Mapping[str, int]) -> int:
        """How many bytes would be downloaded."""
        return sum(self.store.missing_bytes(digest, size) for digest, size in sizes.items())

    def _require_room(self, job: BlobJob[Placed]) -> None:
        """Refuse before the first byte what cannot fit; old blobs make room first."""
        room = Room(job.into, self.floor_bytes)
        # Content is hardly smaller than it is stored; the floor tells the rest while it is written.
        wanted_bytes = self.missing_bytes(job.sizes) + sum(job.sizes.values())
        lacking_bytes = wanted_bytes + self.floor_bytes - room.free_bytes()
        if lacking_bytes > 0:
            self.store.trim(room_bytes=lacking_bytes)
        room.require(wanted_bytes, "the download and what is in it")

    def _fetch(self, job: BlobJob[Placed], flight: Flight) -> tuple[Placed, int]:
        with self._opened(job.sizes) as blobs, flight.branch() as branch:
            remotes = {
                digest: RemoteBlob(
                    blob, partial(job.open, digest, branch), f"{job.part} {number} of {len(blobs)}"
                )
                for number, (digest, blob) in enumerate(blobs.items(), start=1)
            }
            downloads = Downloads(
                tuple(remotes.values()),
                branch,
                self.patience,
                self.connections,
                self.floor_bytes,
                self.stall_s,
                job.uri,
            )
            job.meter.is_downloaded = lambda: downloads.is_done
            with downloads.running():
                placed = job.place(OpenBlobs(remotes, self.store, branch))
            return placed, downloads.downloaded_bytes

    @contextmanager
    def _opened(self, sizes: Mapping[str, int]) -> Iterator[dict[str, SharedBlob]]:
        with ExitStack() as stack:
            blobs = {}
            for digest, size_bytes in sizes.items():
                try:
                    blob = blobs[digest] = self.store.open(digest, size_bytes)
                except OSError as error:
                    raise unwritable(self.store.root, error) from error
                stack.callback(self.store.close, blob)
            yield blobs


def _empty(directory: Path) -> None:
    try:
        for path in directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise unwritable(directory, error) from error
