"""A file on its way into a bucket: in one request, or in parts side by side."""

import io
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
from anyio import CapacityLimiter

from ...domain.byte_spans import ByteSpan
from ...domain.ports.object_store import StagingKey
from ...domain.ports.ranged_files import SourceFile
from .calls import run
from .client import Bucket, LazyClient
from .failures import store_errors
from .lanes import Crew
from .left_parts import LeftParts

MIB = 1024 * 1024
MULTIPART_FROM_BYTES = 32 * MIB  # below, one request costs less than starting and ending an upload
PART_BYTES = 16 * MIB
MOST_PARTS = 10_000  # S3's limit
GIVE_UP_S = 5.0  # the end of the worker waits for it


class PartBody(io.RawIOBase):
    """A range of a file as a body that can be sent again.

    `on_move` hears how far it moves and may raise: backwards too, as a body that was read for its signature
    is not sent yet.
    """

    def __init__(self, source: SourceFile, span: ByteSpan, on_move: Callable[[int], None]) -> None:
        super().__init__()
        self._source, self._span, self._on_move = source, span, on_move
        self._at = 0

    def __len__(self) -> int:
        return len(self._span)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._span)}[whence]
        before, self._at = self._at, max(0, base + offset)
        self._on_move(self._at - before)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(len(self._span) - self._at, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        content = self._source.read_at(self._span.start + self._at, wanted)
        self._at += len(content)
        self._on_move(len(content))
        return content


@dataclass
class Upload:
    """Brings `source` to `key`."""

    client: LazyClient
    bucket: Bucket
    key: StagingKey
    source: SourceFile
    limiter: CapacityLimiter
    left: LeftParts
    _pieces: deque[tuple[int, ByteSpan]] = field(default_factory=deque)
    _etags: dict[int, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._crew = Crew(self.limiter)

    async def run(self) -> None:
        """Send it; nothing is stored, not even parts, if that fails or is cancelled."""
        if self.source.size_bytes < MULTIPART_FROM_BYTES:
            await self._crew.run(self._whole, lambda: False)
        else:
            await self._in_parts()

    async def _whole(self, _may_stay: Callable[[], bool]) -> None:
        def put() -> int:
            with self._errors():
                self.client.get().put_object(
                    Bucket=self.bucket.name,
                    Key=self.key,
                    Body=self._body(ByteSpan(0, self.source.size_bytes)),
                    ContentLength=self.source.size_bytes,
                    Metadata=_metadata(),
                )
            return 0

        await self._crew.in_thread(put)

    async def _in_parts(self) -> None:
        upload_id = await run(self._begin, self.limiter, discard=self._give_up)
        try:
            self._pieces = deque(enumerate(self._parts(), start=1))

            async def lane(may_stay: Callable[[], bool]) -> None:
                while self._pieces and may_stay():
                    await self._crew.in_thread(self._send, upload_id, *self._pieces.popleft())

            await self._crew.run(lane, lambda: bool(self._pieces))
            await run(partial(self._complete, upload_id), self.limiter)
        except BaseException:
            with anyio.move_on_after(GIVE_UP_S, shield=True):
                await run(partial(self._give_up, upload_id), None)
            raise

    def _parts(self) -> list[ByteSpan]:
        total = self.source.size_bytes
        part_bytes = max(PART_BYTES, -(-total // MOST_PARTS // MIB) * MIB)
        return [ByteSpan(start, min(start + part_bytes, total)) for start in range(0, total, part_bytes)]

    def _begin(self) -> str:
        with self._errors():
            answer = self.client.get().create_multipart_upload(
                Bucket=self.bucket.name, Key=self.key, Metadata=_metadata()
            )
        return answer["UploadId"]

    def _send(self, upload_id: str, number: int, span: ByteSpan) -> int:
        with self._errors():
            answer = self.client.get().upload_part(
                Bucket=self.bucket.name,
                Key=self.key,
                UploadId=upload_id,
                PartNumber=number,
                Body=self._body(span),
                ContentLength=len(span),
            )
        self._etags[number] = answer["ETag"]
        return 0

    def _complete(self, upload_id: str) -> None:
        parts: Any = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(self._etags.items())]
        with self._errors():
            self.client.get().complete_multipart_upload(
                Bucket=self.bucket.name, Key=self.key, UploadId=upload_id, MultipartUpload={"Parts": parts}
            )

    def _give_up(self, upload_id: str) -> None:
        self.left.give_up(self.key, upload_id)

    def _body(self, span: ByteSpan) -> Any:
        return PartBody(self.source, span, self._on_move)

    def _on_move(self, size_bytes: int) -> None:
        if self._crew.stopped.is_set():
            raise OSError("the upload was cancelled")
        with self._lock:
            self._crew.moved_bytes += size_bytes

    def _errors(self) -> Any:
        return store_errors(f"putting object {self.key}", key=self.key, where=str(self.bucket))


def _metadata() -> dict[str, str]:
    """What the frontend's cleaner of `ephemeral/` reads."""
    return {"created-at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
