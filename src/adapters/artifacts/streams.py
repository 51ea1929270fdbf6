"""Reading bytes of an artifact: part of a file, and hashed on the way."""

import hashlib
import re
from collections.abc import Callable
from typing import BinaryIO, Protocol

from ...domain.errors import ArtifactInvalid, ArtifactUnavailable

CHUNK_BYTES = 1 << 18  # small enough to stay in a core's cache from one step to the next
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
