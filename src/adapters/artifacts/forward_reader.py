"""A stream read forward only, through a buffer, and never further than its limits."""

import io
from collections.abc import Callable

from ...domain.errors import ArtifactInvalid
from .streams import CHUNK_BYTES, ByteReader


class ForwardReader:
    """What the headers and contents of a tar archive are read through.

    `tarfile` believes a header that announces a name of ten gigabytes, or one that sends it backwards
    for ever; here both end in ArtifactInvalid.
    """

    def __init__(
        self,
        source: ByteReader,
        *,
        limit_bytes: int,
        uri: str,
        skip: Callable[[int], int] | None = None,
    ) -> None:
        """`skip` moves `source` on without reading and returns how far; None where only reading moves it."""
        self._source = source
        self._skip = skip
        self._limit_bytes = limit_bytes
        self._uri = uri
        # Who can skip is asked for no more than is wanted, so that what follows can be skipped.
        self._least_bytes = CHUNK_BYTES if skip is None else 0
        self._chunk = b""
        self._view = memoryview(b"")
        self._at = 0  # in the chunk
        self._position = 0
        self._allowance = 0
        self.last_block = b""  # what the latest read returned

    def allow(self, size_bytes: int) -> None:
        """Permit the reads until the next call `size_bytes` in all; seeking is not counted."""
        self._allowance = size_bytes

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        left = position - self._position
        if whence != io.SEEK_SET or left < 0:
            raise ArtifactInvalid(self._uri, "a tar header that points backwards")
        while left:
            step = min(left, len(self._chunk) - self._at)
            if step:
                self._at += step
            elif self._skip is not None:
                step = self._skip(left)
            elif self._fill(left):
                continue
            if not step:
                raise ArtifactInvalid(self._uri, "a tar archive that ends too early")
            left -= step
            self._move(step)
        return self._position

    def read(self, size: int, /) -> bytes:
        """Exactly `size` bytes unless the stream ends before."""
        self._allowance -= size
        if size < 0 or self._allowance < 0:
            raise ArtifactInvalid(self._uri, "a tar header larger than any real one")
        at = self._at
        block = self._chunk[at : at + size]
        self._at = at + len(block)
        while len(block) < size and self._fill(size - len(block)):
            self._at = min(size - len(block), len(self._chunk))
            block += self._chunk[: self._at]
        self._move(len(block))
        self.last_block = block
        return block

    def unread(self, block: bytes) -> None:
        """Take back `block`, the latest bytes that were read."""
        self._position -= len(block)
        if self._at >= len(block):
            self._at -= len(block)
            return
        self._chunk = block + self._chunk[self._at :]
        self._view, self._at = memoryview(self._chunk), 0

    def some(self, size: int) -> memoryview:
        """Up to `size` bytes, as they come; none at the end. They stay what they are."""
        at = self._at
        if at == len(self._chunk):
            self._fill(size)
            at = 0
        piece = self._view[at : at + size]
        self._at = at + len(piece)
        self._move(len(piece))
        return piece

    def drain(self) -> None:
        """Read the source to its end."""
        while self.some(CHUNK_BYTES):
            pass

    def close(self) -> None:
        """Nothing to close: the source belongs to the caller."""

    def _fill(self, wanted: int) -> int:
        """Replace the chunk, which is used up, by the next one; returns its size, 0 at the end."""
        self._chunk = self._source.read(max(min(wanted, CHUNK_BYTES), self._least_bytes))
        self._view, self._at = memoryview(self._chunk), 0
        return len(self._chunk)

    def _move(self, step: int) -> None:
        self._position += step
        if self._position > self._limit_bytes:
            raise ArtifactInvalid(
                self._uri, f"it unpacks to more than {self._limit_bytes} bytes; raise the limit if intended"
            )
