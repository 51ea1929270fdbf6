"""One version of an object on its way into a file: one long stream, or ranges side by side."""

import threading
from collections.abc import Callable
from typing import Any

import anyio
from anyio import CapacityLimiter, to_thread
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from ...domain.byte_spans import ByteSpan
from ...domain.ports.object_store import ObjectInfo, StagingKey
from ...domain.ports.ranged_files import AssembledFile
from ...domain.store_errors import ObjectChanged, ObjectInvalid, StoreUnavailable
from ...domain.transfer_pieces import Pieces
from .client import Bucket, LazyClient
from .failures import explained
from .lanes import Crew
from .stream import BLOCK_BYTES, Stream, info_of, raw

PIECE_BYTES = 8 * 1024 * 1024  # what a lane fetches before it looks whether it may stay
LONGEST_PIECE_BYTES = 64 * 1024 * 1024
PIECE_S = 0.4  # longer pieces for faster lanes, as each is a request of its own
ATTEMPTS = 5  # without a single new byte in between
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


class _Broken(Exception):
    """A stream ended before its time."""


class S3StoredObject:
    """A `StoredObject`.

    `first` is the answer that told `info`, if that is being read already.
    """

    def __init__(
        self,
        client: LazyClient,
        bucket: Bucket,
        key: StagingKey,
        info: ObjectInfo,
        limiter: CapacityLimiter,
        first: Stream | None = None,
        whole: bytes | None = None,
    ) -> None:
        self.info = info
        self._client, self._bucket, self._key = client, bucket, key
        self._operation = f"getting object {key}"
        self._crew = Crew(limiter)
        self._pieces = Pieces.of(())
        self._live: list[Stream] = []
        self._lock = threading.Lock()
        self.whole = whole
        self._waiting = first

    async def copy_to(self, target: AssembledFile) -> None:
        if self.whole is not None and target.missing == (ByteSpan(0, len(self.whole)),):
            await to_thread.run_sync(target.write_at, 0, memoryview(self.whole), limiter=self._crew.limiter)
        self._pieces = Pieces.of(target.missing)
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
        buffer = memoryview(bytearray(BLOCK_BYTES))
        try:
            while self._pieces and may_stay():
                stream = await self._fetch(self._next(), stream, target, buffer)
        finally:
            if stream is not None:
                stream.close()

    def _next(self) -> ByteSpan:
        if self._crew.alone:
            return self._pieces.take(shares=1, at_most=PIECE_BYTES)
        plan = self._crew.plan
        at_most = min(max(PIECE_BYTES, int(PIECE_S * plan.lane_rate)), LONGEST_PIECE_BYTES)
        return self._pieces.take(shares=2 * plan.lanes_soon, at_most=at_most)

    def _interrupt(self) -> None:
        """Wake the threads that wait for bytes nobody wants any more."""
        for stream in tuple(self._live):
            stream.interrupt()

    async def _fetch(
        self, piece: ByteSpan, stream: Stream | None, target: AssembledFile, buffer: memoryview
    ) -> Stream:
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
                at = await self._crew.in_thread(self._read, stream, piece.stop, target, buffer)
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
        stop = self._pieces.reach(piece_stop) if self._crew.alone else piece_stop
        made: list[Stream] = []

        def ask() -> int:
            answer = self._client.get().get_object(
                Bucket=self._bucket.name,
                Key=self._key,
                Range=f"bytes={start}-{stop - 1}",
                IfMatch=f'"{self.info.etag}"',
            )
            made.append(Stream(raw(answer), start, stop))
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

    def _read(self, stream: Stream, stop: int, target: AssembledFile, buffer: memoryview) -> int:
        """Write the bytes of `stream` up to `stop`; where it ended."""
        self._live.append(stream)
        try:
            return self._copy(stream, stop, target, buffer)
        finally:
            self._live.remove(stream)

    def _copy(self, stream: Stream, stop: int, target: AssembledFile, buffer: memoryview) -> int:
        while stream.at < stop and not self._crew.stopped.is_set():
            got = stream.read_into(buffer[: stop - stream.at])
            if not got:
                break
            target.write_at(stream.at, buffer[:got])
            stream.at += got
            with self._lock:
                self._crew.moved_bytes += got
        return stream.at
