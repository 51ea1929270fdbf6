"""Reading bytes of an artifact: part of a file, hashed on the way, and forward only."""

import hashlib
import io
import re
from collections.abc import Callable
from typing import BinaryIO, Protocol

from ...domain.errors import ArtifactInvalid, ArtifactUnavailable

CHUNK_BYTES = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def is_digest(text: str) -> bool:
    """Whether `text` is a digest that can be verified here: sha256 or sha512."""
    return _DIGEST.fullmatch(text) is not None


class ByteReader(Protocol):
    """Something to read from once, front to back."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; b"" at the end."""


class FileSection:
    """A part of an open file, read from its start; every read looks for a cancellation first.

    Raises:
        ArtifactUnavailable: the file cannot be read.
        ArtifactInvalid: it ends before the section does.
    """

    def __init__(
        self, file: BinaryIO, offset: int, size_bytes: int, *, uri: str, check_cancelled: Callable[[], None]
    ) -> None:
        self._file = file
        self._next = offset
        self._left = size_bytes
        self._uri = uri
        self._check_cancelled = check_cancelled

    def read(self, size: int, /) -> bytes:
        self._check_cancelled()
        wanted = min(size, self._left)
        if not wanted:
            return b""
        try:
            self._file.seek(self._next)
            chunk = self._file.read(wanted)
        except OSError as error:
            raise ArtifactUnavailable(self._uri, error.strerror or str(error)) from error
        if not chunk:
            raise ArtifactInvalid(self._uri, f"it ends {self._left} bytes too early; copy it again")
        self._next += len(chunk)
        self._left -= len(chunk)
        return chunk

    def skip(self, size: int) -> int:
        """Leave out up to `size` bytes; returns how many."""
        size = min(size, self._left)
        self._next += size
        self._left -= size
        return size


class PrefixedReader:
    """A reader with bytes put back in front of it."""

    def __init__(self, prefix: bytes, source: ByteReader) -> None:
        self._prefix = prefix
        self._source = source

    def read(self, size: int, /) -> bytes:
        if not self._prefix:
            return self._source.read(size)
        chunk, self._prefix = self._prefix[:size], self._prefix[size:]
        return chunk


class HashingReader:
    """Passes bytes on, and tells their digest (`<algorithm>:<hex>`) once all were read.

    It is compared with `digest`; with "" it is a SHA-256 that is only told.
    """

    def __init__(self, source: ByteReader, digest: str, *, what: str, uri: str) -> None:
        if digest and not is_digest(digest):
            raise ArtifactInvalid(uri, f"{what} has the digest {digest!r}; sha256 and sha512 are understood")
        self._source = source
        self._wanted = digest
        self._hash = hashlib.new(digest.partition(":")[0] or "sha256")
        self._what = what
        self._uri = uri

    def read(self, size: int, /) -> bytes:
        chunk = self._source.read(size)
        self._hash.update(chunk)
        return chunk

    @property
    def digest(self) -> str:
        """Of what was read so far."""
        return f"{self._hash.name}:{self._hash.hexdigest()}"

    def verify(self) -> None:
        """Compare; call it after the source gave b"".

        Raises:
            ArtifactInvalid: the bytes are not the ones the digest names.
        """
        if self._wanted and self.digest != self._wanted:
            raise ArtifactInvalid(self._uri, f"{self._what} is {self.digest}, should be {self._wanted}")


class ForwardReader:
    """What `tarfile` reads a stream through: it seeks forward only, and reads no more than allowed.

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
        self._position = 0
        self._allowance = 0
        self.last_block = b""  # what the latest read returned

    def allow(self, size_bytes: int) -> None:
        """Permit the reads until the next call `size_bytes` in all; seeking is not counted."""
        self._allowance = size_bytes

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or position < self._position:
            raise ArtifactInvalid(self._uri, "a tar header that points backwards")
        if self._skip is not None:
            self._position += self._skip(position - self._position)
        else:
            while self._position < position and self._take(min(CHUNK_BYTES, position - self._position)):
                pass
        if self._position < position:
            raise ArtifactInvalid(self._uri, "a tar archive that ends too early")
        return self._position

    def read(self, size: int, /) -> bytes:
        """Exactly `size` bytes unless the stream ends before."""
        self._allowance -= size
        if size < 0 or self._allowance < 0:
            raise ArtifactInvalid(self._uri, "a tar header larger than any real one")
        block = self._take(size)
        if len(block) == size or not block:
            self.last_block = block
            return block
        parts = [block]
        size -= len(block)
        while size and (chunk := self._take(size)):
            parts.append(chunk)
            size -= len(chunk)
        self.last_block = b"".join(parts)
        return self.last_block

    def some(self, size: int) -> bytes:
        """Up to `size` bytes, as they come; b"" at the end."""
        return self._take(size)

    def drain(self) -> None:
        """Read the source to its end."""
        while self._take(CHUNK_BYTES):
            pass

    def close(self) -> None:
        """Nothing to close: the source belongs to the caller."""

    def _take(self, size: int) -> bytes:
        chunk = self._source.read(size)
        self._position += len(chunk)
        if self._position > self._limit_bytes:
            raise ArtifactInvalid(
                self._uri, f"it unpacks to more than {self._limit_bytes} bytes; raise the limit if intended"
            )
        return chunk
