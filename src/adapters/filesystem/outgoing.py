"""Files on their way out. Everything that blocks runs in a worker thread, 1 MiB or more at a time."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from anyio import to_thread

from ...domain.errors import FileUnreadable
from .failures import reading
from .hashing_writer import HASH_STEP_BYTES

CHUNK_BYTES = 1024 * 1024  # what the port allows


class LocalOutgoingFile:
    """An `OutgoingFile` that reads through a descriptor, so its name may go or change."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._file: int | None = descriptor
        self.size_bytes = os.fstat(descriptor).st_size

    @property
    def descriptor(self) -> int | None:
        return self._file

    async def chunks(self, start: int = 0, count: int | None = None) -> AsyncIterator[bytes]:
        offset, end = start, self.size_bytes if count is None else start + count
        while offset < end:
            chunk = await to_thread.run_sync(self._read, offset, end)
            if not chunk:
                raise FileUnreadable(self._path, f"it ends at byte {offset} of {self.size_bytes}")
            yield chunk
            offset += len(chunk)

    async def sha256(self) -> str:
        digest = hashlib.sha256()
        offset = 0
        while offset < self.size_bytes:
            offset += await to_thread.run_sync(self._hash_from, offset, digest)
        return digest.hexdigest()

    async def close(self) -> None:
        if self._file is not None:
            descriptor, self._file = self._file, None
            os.close(descriptor)

    def _hash_from(self, offset: int, digest: "hashlib._Hash") -> int:
        """Hash up to `HASH_STEP_BYTES` from `offset`, between two chances to be cancelled; how many."""
        done = 0
        while done < HASH_STEP_BYTES and offset + done < self.size_bytes:
            chunk = self._read(offset + done, self.size_bytes)
            if not chunk:
                raise FileUnreadable(self._path, f"it ends at byte {offset + done} of {self.size_bytes}")
            digest.update(chunk)
            done += len(chunk)
        return done

    def _read(self, offset: int, end: int) -> bytes:
        if self._file is None:
            raise FileUnreadable(self._path, "it was closed")
        with reading(self._path):
            return os.pread(self._file, min(CHUNK_BYTES, end - offset), offset)
