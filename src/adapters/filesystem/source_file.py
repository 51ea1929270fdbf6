"""Files read by ranges, from worker threads."""

import hashlib
import os

from anyio import to_thread

from ...domain.byte_spans import ByteSpan
from ...domain.errors import FileUnreadable
from ...domain.ports.filesystem import RootedPath
from ...domain.ports.ranged_files import Algorithm
from . import beneath
from .failures import reading

READ_BYTES = 1024 * 1024
HASH_STEP_BYTES = 64 * READ_BYTES  # some 100 ms: how long a cancellation may wait
HASHES = {"md5": hashlib.md5, "sha256": hashlib.sha256}


class LocalSourceFile:
    """A `SourceFile` read through a descriptor."""

    def __init__(self, place: RootedPath) -> None:
        self._path = place.path
        self._file: int | None = beneath.open_regular(place)
        self.size_bytes = os.fstat(self._file).st_size

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        if self._file is None:
            raise FileUnreadable(self._path, "it was closed")
        size_bytes = min(size_bytes, self.size_bytes - offset)
        with reading(self._path):
            content = os.pread(self._file, size_bytes, offset)
        if len(content) < size_bytes:
            raise FileUnreadable(self._path, f"it became shorter than {self.size_bytes} bytes")
        return content

    async def digest(self, algorithm: Algorithm, span: ByteSpan) -> bytes:
        hashed = HASHES[algorithm](usedforsecurity=False)
        for start in range(span.start, span.stop, HASH_STEP_BYTES):
            await to_thread.run_sync(self._hash, start, min(start + HASH_STEP_BYTES, span.stop), hashed)
        return hashed.digest()

    def _hash(self, start: int, stop: int, hashed: "hashlib._Hash") -> None:
        for at in range(start, stop, READ_BYTES):
            hashed.update(self.read_at(at, min(READ_BYTES, stop - at)))

    async def close(self) -> None:
        if self._file is not None:
            descriptor, self._file = self._file, None
            os.close(descriptor)
