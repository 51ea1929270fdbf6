"""Appends to an open file and hashes what goes by. Everything that blocks runs in a worker thread."""

import hashlib
import os
from pathlib import Path

from anyio import to_thread

from ...domain.ports.filesystem import ByteSource
from ..loop_threads import LoopThreads
from .failures import writing

# A hop to a thread takes some 50 us, hashing and writing 1 MiB some 900 us: larger gains nothing.
BATCH_BYTES = 1024 * 1024
SMALL_BYTES = 64 * 1024  # hashed in less time than that hop
HASH_STEP_BYTES = 32 * BATCH_BYTES  # some 50 ms: how long a cancellation may wait
# Of what an earlier attempt wrote, and nobody hashed since, this many times the bytes of each write are
# hashed beside it: the hash has caught up long before the end, and the client never waits long for it.
CATCH_UP = 4
# Sources may pause: they hold none of the threads that everything else waits for.
_threads = LoopThreads("filling files", 64)


class HashingWriter:
    """The file behind a descriptor opened to append, from byte `size_bytes` on.

    `digest` covers its first `hashed_bytes`; where that is less than all, the rest is read again, which
    needs a descriptor that may be read. `target` names the file in errors.
    """

    def __init__(
        self,
        file: int,
        target: Path,
        *,
        size_bytes: int = 0,
        digest: "hashlib._Hash | None" = None,
        hashed_bytes: int = 0,
    ) -> None:
        self._file = file
        self._target = target
        self._written_bytes = size_bytes
        self._digest = digest or hashlib.sha256()
        self._hashed_bytes = hashed_bytes
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    @property
    def size_bytes(self) -> int:
        return self._written_bytes + self._pending_bytes

    @property
    def progress(self) -> "tuple[hashlib._Hash, int]":
        """The digest and how many bytes it covers."""
        return self._digest, self._hashed_bytes

    async def write(self, chunk: bytes) -> None:
        self._pending.append(chunk)
        self._pending_bytes += len(chunk)
        if self._pending_bytes >= BATCH_BYTES:
            await to_thread.run_sync(self.flush)

    async def fill(self, source: ByteSource, *, most_bytes: int) -> int:
        return await to_thread.run_sync(self._fill, source, most_bytes, limiter=_threads.limiter())

    async def sha256(self) -> str:
        up_to_date = self._hashed_bytes == self._written_bytes
        if up_to_date and self._pending_bytes <= SMALL_BYTES:
            digest = self._digest.copy()
            for chunk in self._pending:
                digest.update(chunk)
            return digest.hexdigest()
        await to_thread.run_sync(self.flush)
        while self._hashed_bytes < self._written_bytes:
            await to_thread.run_sync(self._catch_up, HASH_STEP_BYTES)
        return self._digest.hexdigest()

    def flush(self) -> None:
        """Write what waits; blocks."""
        if not self._pending:
            return
        content = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._append(memoryview(content))
        self._pending, self._pending_bytes = [], 0

    def close(self) -> None:
        """Let go of the descriptor; the size is still told, and so is the hash if it covers all."""
        os.close(self._file)

    def _fill(self, source: ByteSource, most_bytes: int) -> int:
        self.flush()
        buffer = memoryview(bytearray(min(BATCH_BYTES, most_bytes)))
        done = 0
        while done < most_bytes:
            count = source.readinto(buffer[: most_bytes - done])
            if not count:
                break
            self._append(buffer[:count])
            done += count
        return done

    def _append(self, content: memoryview) -> None:
        with writing(self._target):
            rest = content
            while rest:
                rest = rest[os.write(self._file, rest) :]
        up_to_date = self._hashed_bytes == self._written_bytes
        self._written_bytes += len(content)
        if up_to_date:
            self._digest.update(content)
            self._hashed_bytes += len(content)
        else:
            self._catch_up(CATCH_UP * len(content))

    def _catch_up(self, most_bytes: int) -> None:
        until = min(self._hashed_bytes + most_bytes, self._written_bytes)
        with writing(self._target):
            while self._hashed_bytes < until:
                chunk = os.pread(self._file, min(BATCH_BYTES, until - self._hashed_bytes), self._hashed_bytes)
                if not chunk:
                    msg = f"it ends at byte {self._hashed_bytes} of {self._written_bytes}"
                    raise OSError(msg)
                self._digest.update(chunk)
                self._hashed_bytes += len(chunk)
