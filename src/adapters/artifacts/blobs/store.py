"""Blobs kept by their digest, so that nothing is downloaded twice."""

import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .shared_blob import SharedBlob, part_bytes_for

log = logging.getLogger(__name__)

_PARTIAL = ".partial"
_RECORD = ".parts"


@dataclass(frozen=True, slots=True)
class _Kept:
    path: Path
    size_bytes: int  # on disk: partial blobs have holes
    used_s: float


@dataclass
class BlobStore:
    """The directory `root`: `<algorithm>/<hex>` for each blob, `.partial` beside one that is coming in.

    A blob is verified whenever it is read, so nothing here need be believed. Blobs that were not used
    for longest go when all together are larger than `limit_bytes`, or when room is needed; those in use
    stay. Several workers may share the directory: a blob that another one is filling is fetched into a
    file of its own. Methods block, and may be called from any thread.
    """

    root: Path
    limit_bytes: int = 20 * 2**30
    part_bytes_for: Callable[[int], int] = part_bytes_for
    _open: dict[str, SharedBlob] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, digest: str, size_bytes: int) -> SharedBlob:
        """The blob `digest` (`<algorithm>:<hex>`), shared with whoever has it open; give it back by `close`.

        Raises:
            OSError: the file system refuses.
        """
        with self._lock:
            blob = self._open.get(digest)
            if blob is None:
                blob = self._open[digest] = self._opened(digest, size_bytes)
            blob.users += 1
            return blob

    def close(self, blob: SharedBlob) -> None:
        """One user less."""
        with self._lock:
            blob.users -= 1
            if blob.users:
                return
            self._let_go(blob)
            blob.close()
            if not blob.is_complete and not blob.path.name.endswith(_PARTIAL):
                _remove(blob.path)  # one of our own, which nobody would find again

    def seal(self, blob: SharedBlob) -> None:
        """The open blob is whole and verified: keep it."""
        with self._lock:
            if blob.is_complete:
                return
            blob.begin_writeback()
            record, place = blob.record_path, self._path(blob.digest)
            blob.path.rename(place)
            record.unlink(missing_ok=True)
            blob.path, blob.is_complete = place, True

    def discard(self, blob: SharedBlob, edition: int) -> None:
        """What `edition` of the open blob holds is not what its name says: who opens it next begins anew."""
        with self._lock:
            if blob.is_complete:
                self._let_go(blob)
                blob.path.unlink(missing_ok=True)
            else:
                blob.forget(edition)

    def missing_bytes(self, digest: str, size_bytes: int) -> int:
        """How much of a blob would have to be downloaded."""
        with self._lock:
            if digest in self._open:
                return self._open[digest].missing_bytes
        place = self._path(digest)
        if _size(place) == size_bytes:
            return 0
        partial = SharedBlob(digest, _partial(place), size_bytes)
        return size_bytes - partial.recorded_bytes()

    def trim(self, *, room_bytes: int = 0) -> None:
        """Remove blobs until the limit holds, and `room_bytes` in addition."""
        kept = sorted(self._kept(), key=lambda each: each.used_s)
        surplus_bytes = max(sum(each.size_bytes for each in kept) - self.limit_bytes, 0)
        wanted_bytes = max(surplus_bytes, room_bytes)
        for each in kept:
            if wanted_bytes <= 0:
                return
            with self._lock:
                if any(blob.path == each.path for blob in self._open.values()):
                    continue
                _remove(each.path)
            log.debug("blob removed: path=%s size_bytes=%d", each.path, each.size_bytes)
            wanted_bytes -= each.size_bytes

    def _opened(self, digest: str, size_bytes: int) -> SharedBlob:
        place = self._path(digest)
        place.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        if _size(place) == size_bytes:
            blob = SharedBlob(digest, place, size_bytes, is_complete=True)
            with suppress(FileNotFoundError):  # another worker made room
                blob.open()
                with suppress(OSError):
                    os.utime(place)
                return blob
        blob = SharedBlob(digest, _partial(place), size_bytes, part_bytes_for=self.part_bytes_for)
        if not blob.open():
            blob.path = place.with_name(f"{place.name}.{secrets.token_hex(8)}")
            blob.open()
        return blob

    def _let_go(self, blob: SharedBlob) -> None:
        if self._open.get(blob.digest) is blob:
            del self._open[blob.digest]

    def _kept(self) -> Iterator[_Kept]:
        for directory in self.root.iterdir() if self.root.is_dir() else ():
            for path in directory.iterdir() if directory.is_dir() else ():
                if path.name.endswith(_RECORD):
                    continue
                with suppress(FileNotFoundError):
                    status = path.stat()
                    yield _Kept(path, status.st_blocks * 512, status.st_mtime)

    def _path(self, digest: str) -> Path:
        algorithm, _, name = digest.partition(":")
        assert name.isalnum(), digest  # whoever parsed it made sure; never a path
        return self.root / algorithm / name


def _partial(place: Path) -> Path:
    return place.with_name(place.name + _PARTIAL)


def _remove(path: Path) -> None:
    path.with_name(path.name + _RECORD).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
