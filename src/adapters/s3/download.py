"""One version of an object on its way into a file: one long stream, or ranges side by side."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CapacityLimiter, to_thread
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from ...domain.byte_spans import ByteSpan
from ...domain.ports.object_store import ObjectInfo, StagingKey
from ...domain.ports.ranged_files import AssembledFile
from ...domain.store_errors import ObjectChanged, ObjectInvalid, StoreUnavailable
from .client import Bucket, LazyClient
from .failures import explained
from .lanes import Crew

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

PIECE_BYTES = 8 * 1024 * 1024  # what a lane fetches before it looks whether it may stay
PIECES_AT_ONCE = 4  # of a long file, when lanes fetch side by side: fewer requests
BLOCK_BYTES = 512 * 1024
ATTEMPTS = 5  # without a single new byte in between
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


@dataclass
class Stream:
    """An answer being read: its next byte is `at`, its last one lies before `stop`."""

    body: Any  # urllib3's response below botocore's wrapper
    at: int
    stop: int

    def interrupt(self) -> None:
        """End a read that waits in another thread."""
        with suppress(OSError, RuntimeError, ValueError, AttributeError):  # it may have ended by itself
            self.body.shutdown()

    def close(self) -> None:
        """Let go; a connection with bytes left on it is closed, any other goes back to the pool."""
        if self.at < self.stop:
            self.body.close()
        else:
            self.body.release_conn()


class _Broken(Exception):
    """A stream ended before its time."""


def info_of(head: Any) -> ObjectInfo:
    """What the headers of an answer to HEAD or GET tell about the object."""
    size_bytes = int(head.get("ContentLength") or 0)
    if "ContentRange" in head:
        total = str(head["ContentRange"]).rpartition("/")[2]
        size_bytes = int(total) if total.isdigit() else -1
    encrypted = str(head.get("ServerSideEncryption", "")).startswith("aws:") or "SSECustomerAlgorithm" in head
    modified = head.get("LastModified")
    return ObjectInfo(
        size_bytes=size_bytes,
        etag=str(head.get("ETag", "")).removeprefix("W/").strip('"'),
        modified_s=int(modified.timestamp()) if modified else 0,
        sha256=str(head.get("Metadata", {}).get("sha256", "")).strip().lower(),
        etag_is_hash=not encrypted,
    )


class S3StoredObject:
    """A `StoredObject`.

    `first` is the answer that told `info`, if one is being read already; `whole` is all of a small object.
    """

    def __init__(
        self,
        client: LazyClient,
        bucket: Bucket,
        key: StagingKey,
        info: ObjectInfo,
        limiter: CapacityLimiter,
        first: "GetObjectOutputTypeDef | None" = None,
        whole: bytes | None = None,
    ) -> None:
        self.info = info
        self._client, self._bucket, self._key = client, bucket, key
        self._operation = f"getting object {key}"
        self._crew = Crew(limiter)
        self._pieces: deque[ByteSpan] = deque()
        self._live: list[Stream] = []
        self._lock = threading.Lock()
        self._whole = whole
        self._waiting = Stream(_raw(first), 0, info.size_bytes) if first else None

    async def copy_to(self, target: AssembledFile) -> None:
        if self._whole is not None and target.missing == (ByteSpan(0, len(self._whole)),):
            await to_thread.run_sync(target.write_at, 0, memoryview(self._whole), limiter=self._crew.limiter)
        self._pieces = deque(
            ByteSpan(start, min(start + PIECE_BYTES, gap.stop))
            for gap in target.missing
            for start in range(gap.start, gap.stop, PIECE_BYTES)
        )
        if not self._pieces:
            return
        self._crew = Crew(self._crew.limiter, interrupt=self._interrupt)

        async def lane(may_stay: Callable[[], bool]) -> None:
            await self._lane(target, may_stay)

        await self._crew.run(lane, lambda: bool(self._pieces))

    async def close(self) -> None:
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None

    async def _lane(self, target: AssembledFile, may_stay: Callable[[], bool]) -> None:
        stream, self._waiting = self._waiting, None
        try:
            while self._pieces and may_stay():
                stream = await self._fetch(self._next(), stream, target)
        finally:
            if stream is not None:
                stream.close()

    def _next(self) -> ByteSpan:
        piece = self._pieces.popleft()
        if self._crew.alone:
            return piece
        stop, enough = piece.stop, self._crew.plan.lanes * 2 * PIECES_AT_ONCE
        for _ in range(PIECES_AT_ONCE - 1):
            if len(self._pieces) < enough or self._pieces[0].start != stop:
                break
            stop = self._pieces.popleft().stop
        return ByteSpan(piece.start, stop)

    def _interrupt(self) -> None:
        """Wake the threads that wait for bytes nobody wants any more."""
        for stream in tuple(self._live):
            stream.interrupt()

    async def _fetch(self, piece: ByteSpan, stream: Stream | None, target: AssembledFile) -> Stream:
        """Write `piece`, going on with `stream` if it leads there; the stream as it is left."""
        at, attempts = piece.start, 0
        while True:
            before = at
            try:
                if (
                    stream is None
                    or stream.at != at
                    or stream.stop < piece.stop
                    or self._overreaches(stream, piece)
                ):
                    if stream is not None:
                        stream.close()
                    stream = await self._open(at, piece.stop)
                at = await self._crew.in_thread(self._read, stream, piece.stop, target)
                if at >= piece.stop or self._crew.stopped.is_set():
                    return stream
                self._ended_early(at)
            except (_Broken, BotoCoreError, ClientError, HTTPError, OSError) as error:
                at = stream.at if stream is not None and stream.at > at else at
                if stream is not None:
                    stream.close()
                    stream = None
                attempts = 1 if at > before else attempts + 1
                self._give_up_maybe(error, attempts)
            await anyio.sleep(min(FIRST_PAUSE_S * 2**attempts, LONGEST_PAUSE_S))

    def _ended_early(self, at: int) -> None:
        raise _Broken(f"it ended at byte {at} of {self.info.size_bytes}")

    def _overreaches(self, stream: Stream, piece: ByteSpan) -> bool:
        """Whether other lanes fetch what `stream` would bring after `piece`."""
        return stream.stop > piece.stop and not self._crew.alone

    def _give_up_maybe(self, error: Exception, attempts: int) -> None:
        """Raise what cannot be mended by asking again."""
        if isinstance(error, _Broken):
            failure: Exception = StoreUnavailable(
                self._operation, f"{self._bucket} broke off: {error}; it is tried again from there"
            )
        else:
            failure = explained(error, self._operation, key=self._key, where=str(self._bucket))
        if attempts >= ATTEMPTS or not isinstance(failure, StoreUnavailable):
            raise failure from error

    async def _open(self, start: int, piece_stop: int) -> Stream:
        """A stream from `start` on: to the end of the gap when we are alone, else of the piece."""
        stop = piece_stop
        if self._crew.alone:
            for piece in self._pieces:
                if piece.start != stop:
                    break
                stop = piece.stop
        made: list[Stream] = []

        def ask() -> int:
            answer = self._client.get().get_object(
                Bucket=self._bucket.name,
                Key=self._key,
                Range=f"bytes={start}-{stop - 1}",
                IfMatch=f'"{self.info.etag}"',
            )
            made.append(Stream(_raw(answer), start, stop))
            self._require_same(answer, made[0])
            return 0

        try:
            await self._crew.in_thread(ask)
        except BaseException:
            for stream in made:
                stream.close()
            raise
        return made[0]

    def _require_same(self, answer: Any, stream: Stream) -> None:
        """Not every store heeds If-Match."""
        said = info_of(answer)
        if not said.etag and self.info.etag:
            raise _Broken("it ended within its headers")  # Python's HTTP client takes that for their end
        if said.etag != self.info.etag:
            raise ObjectChanged(self._key)
        if said.size_bytes != self.info.size_bytes:
            reason = f"{said.size_bytes} bytes now, {self.info.size_bytes} before, under one ETag"
            raise ObjectInvalid(self._operation, f"{self._bucket}: {reason}")
        if "ContentRange" not in answer and (stream.at, stream.stop) != (0, self.info.size_bytes):
            raise ObjectInvalid(
                self._operation, f"{self._bucket} ignores Range, which parallel reading needs"
            )

    def _read(self, stream: Stream, stop: int, target: AssembledFile) -> int:
        """Write the bytes of `stream` up to `stop`; where it ended."""
        self._live.append(stream)
        try:
            return self._copy(stream, stop, target)
        finally:
            self._live.remove(stream)

    def _copy(self, stream: Stream, stop: int, target: AssembledFile) -> int:
        while stream.at < stop and not self._crew.stopped.is_set():
            block = stream.body.read(min(BLOCK_BYTES, stop - stream.at))
            if not block:
                break
            target.write_at(stream.at, memoryview(block))
            stream.at += len(block)
            with self._lock:
                self._crew.moved_bytes += len(block)
        return stream.at


def read_whole(answer: "GetObjectOutputTypeDef") -> bytes | None:
    """The content of a small object; None when it is large, or the answer breaks off."""
    info = info_of(answer)
    if info.size_bytes > BLOCK_BYTES:
        return None
    body = _raw(answer)
    try:
        content: bytes = body.read()
    except (HTTPError, OSError):
        content = b""
    if len(content) != info.size_bytes:
        body.close()
        return None
    body.release_conn()
    return content


def _raw(answer: "GetObjectOutputTypeDef") -> Any:
    """urllib3's response: botocore's wrapper keeps a second count of bytes, and cannot be interrupted."""
    body: Any = answer["Body"]
    return body._raw_stream  # noqa: SLF001
