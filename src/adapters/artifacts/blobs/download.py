"""Filling blobs over several connections at once: parts in order, each resumed where it broke off."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from ....domain.errors import ArtifactInvalid, ArtifactUnavailable
from ..filing import unwritable
from ..web.client import Answer, WebFailure
from ..web.flight import FetchCut, Flight
from ..web.patience import Patience, require_lasting
from .room import Room
from .shared_blob import Part, SharedBlob

_READ_BYTES = 1 << 18
_SLOWEST_BYTES_S = 128  # averaged over the time a connection may stall; less is a dead one
_WAIT_S = 1.0  # for a part to be let go of, which is told; this is for what was told before anybody listened
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

OpenRange = Callable[[Mapping[str, str]], AbstractContextManager[Answer]]


@dataclass
class RemoteBlob:
    """A blob and where it comes from: `open` asks for it, with a `Range` header or without."""

    blob: SharedBlob
    open: OpenRange
    what: str
    takes_ranges: bool = True
    failures: int = 0  # of reading it as a whole


class _RangeIgnored(Exception):
    """The server sends the whole blob, whatever is asked for."""


@dataclass
class Downloads:
    """Fetches what is missing of `remotes`, in their order, by up to `connections` threads.

    The first failure ends the flight.
    """

    remotes: Sequence[RemoteBlob]
    flight: Flight
    patience: Patience
    connections: int
    floor_bytes: int
    stall_s: float
    uri: str
    downloaded_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Fetch while the block runs; at its end the flight is cut, and no thread is left."""
        parts = sum(-(-each.blob.missing_bytes // each.blob.part_bytes) for each in self.remotes)
        threads = [
            threading.Thread(target=self._work, name=f"download-{number}", daemon=True)
            for number in range(min(self.connections, parts))
        ]
        with self.flight.track(self):
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                self.flight.cut()
                for thread in threads:
                    thread.join()

    def shutdown(self) -> None:
        """The flight is over: wake those who wait for blobs."""
        for remote in self.remotes:
            remote.blob.wake()

    @property
    def is_done(self) -> bool:
        """Whether everything is there."""
        return not any(each.blob.missing_bytes for each in self.remotes)

    def _work(self) -> None:
        try:
            while not self.is_done:
                self.flight.check()
                if not self._work_once():
                    self._wait_for_others()
        except FetchCut:
            return
        except Exception as error:  # noqa: BLE001 - raised again by the thread that reads
            self.flight.fail(error)

    def _work_once(self) -> bool:
        """Fetch one part; False when others fetch all there is."""
        for remote in self.remotes:
            parts = remote.blob.claim_all() if not remote.takes_ranges else _one(remote.blob.claim())
            if not parts:
                continue
            try:
                if remote.takes_ranges:
                    self._fetch(remote, parts[0])
                else:
                    self._fetch_whole(remote, parts)
            except _RangeIgnored:
                remote.takes_ranges = False
            finally:
                for part in parts:
                    remote.blob.release(part)
            return True
        return False

    def _wait_for_others(self) -> None:
        unfinished = [each.blob for each in self.remotes if each.blob.missing_bytes]
        if unfinished:
            unfinished[0].wait(_WAIT_S, is_over=self.flight.is_over)

    def _fetch(self, remote: RemoteBlob, part: Part) -> None:
        size_bytes = remote.blob.size_bytes
        room = Room(remote.blob.path.parent, self.floor_bytes)
        is_whole = part.offset == 0 and part.end == size_bytes
        at, failures = part.offset, 0
        while at < part.end:
            headers = {} if is_whole and at == 0 else {"Range": f"bytes={at}-{part.end - 1}"}
            before = at
            try:
                with remote.open(headers) as answer:
                    self._require_range(answer, remote, at, size_bytes, ranged=bool(headers))
                    for chunk in self._chunks(answer, part.end - at):
                        remote.blob.write(part, at, chunk)
                        at += len(chunk)
                        self._count(len(chunk), room)
            except WebFailure as failure:
                failures = failures + 1 if at == before else 1
                self._wait(failures, failure, remote)
            except OSError as error:
                raise unwritable(remote.blob.path, error) from error

    def _fetch_whole(self, remote: RemoteBlob, parts: Sequence[Part]) -> None:
        """Read the blob from its start and keep what is missing: its server knows no ranges."""
        room = Room(remote.blob.path.parent, self.floor_bytes)
        pending, at = list(parts), 0
        try:
            with remote.open({}) as answer:
                self._require_range(answer, remote, 0, remote.blob.size_bytes, ranged=False)
                for chunk in self._chunks(answer, remote.blob.size_bytes):
                    while pending and pending[0].offset < at + len(chunk):
                        part = pending[0]
                        kept = chunk[max(part.offset - at, 0) : part.end - at]
                        remote.blob.write(part, max(part.offset, at), kept)
                        if part.end > at + len(chunk):
                            break
                        pending.pop(0)
                    at += len(chunk)
                    self._count(len(chunk), room)
        except WebFailure as failure:
            remote.failures += 1
            self._wait(remote.failures, failure, remote)
        except OSError as error:
            raise unwritable(remote.blob.path, error) from error

    def _require_range(
        self, answer: Answer, remote: RemoteBlob, at: int, size_bytes: int, *, ranged: bool
    ) -> None:
        """Check that the answer is what was asked for."""
        require_lasting(answer, remote.what)
        if answer.status == 206 and ranged:
            found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
            if found is None or int(found[1]) != at:
                raise WebFailure(
                    f"{remote.what}: the server answers with another range than it was asked for"
                )
            told = found[3]
        elif answer.status == 200:
            if ranged:
                raise _RangeIgnored
            told = answer.headers.get("content-length", "*")
        elif answer.status == 416:
            told = answer.headers.get("content-range", "").rpartition("/")[2] or "less"
        else:
            raise ArtifactUnavailable(self.uri, f"{remote.what}: the server answers {answer.status}")
        if told not in {"*", str(size_bytes)}:
            raise ArtifactInvalid(self.uri, f"{remote.what} has {told} bytes, should have {size_bytes}")

    def _chunks(self, answer: Answer, size_bytes: int) -> Iterator[bytes]:
        """The body in chunks, exactly `size_bytes` of it."""
        left, since_s, since_bytes = size_bytes, time.monotonic(), 0
        while left:
            self.flight.check()
            chunk = answer.read(min(_READ_BYTES, left))
            if not chunk:
                raise WebFailure(f"the connection ended {left} bytes too early")
            left -= len(chunk)
            since_bytes += len(chunk)
            now_s = time.monotonic()
            if now_s - since_s >= self.stall_s:
                if since_bytes < _SLOWEST_BYTES_S * self.stall_s:
                    raise WebFailure(f"only {since_bytes} bytes came in {now_s - since_s:.0f} s")
                since_s, since_bytes = now_s, 0
            yield chunk

    def _count(self, size_bytes: int, room: Room) -> None:
        with self._lock:
            self.downloaded_bytes += size_bytes
        room.wrote(size_bytes)

    def _wait(self, failures: int, failure: WebFailure, remote: RemoteBlob) -> None:
        try:
            self.patience.wait(failures, failure, self.flight)
        except WebFailure:
            raise ArtifactUnavailable(self.uri, f"{remote.what}: {failure}") from failure


def _one(part: Part | None) -> Sequence[Part]:
    return () if part is None else (part,)
