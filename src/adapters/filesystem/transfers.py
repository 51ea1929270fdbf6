"""Files on their way in and out. Everything that blocks runs in a worker thread, 1 MiB or more at a time."""

import hashlib
import os
import secrets
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from anyio import to_thread

from ...domain.errors import FileUnreadable
from ...domain.file_names import private_name
from ...domain.ports.filesystem import RootedPath
from . import beneath
from .failures import reading, writing

# A hop to a thread takes some 50 us, hashing and writing 1 MiB some 900 us: larger gains nothing.
BATCH_BYTES = 1024 * 1024
CHUNK_BYTES = 1024 * 1024  # what the port allows
HASH_STEP_BYTES = 32 * CHUNK_BYTES  # some 50 ms: how long a cancellation may wait


class LocalIncomingFile:
    """An `IncomingFile` under a hidden name in the directory of its target."""

    def __init__(self, place: RootedPath, mode: int) -> None:
        """Create the hidden file; blocks.

        Raises:
            PathEscapes, NoSpace, FileUnwritable: see `FileSystem.open_incoming`.
        """
        self._target = place.path
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._written_bytes = 0
        self._digest = hashlib.sha256()
        with writing(self._target):
            directory, self._name = beneath.resolve_entry(place)
            self._directory: int | None = beneath.open_directory(directory, create=True)
            self._temporary = private_name(self._name, secrets.token_hex(8))
            try:
                _refuse_directory(self._name, self._directory)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = os.open(self._temporary, flags, mode, dir_fd=self._directory)
            except BaseException:
                os.close(self._directory)
                raise

    @property
    def size_bytes(self) -> int:
        return self._written_bytes + self._pending_bytes

    @property
    def sha256(self) -> str:
        digest = self._digest.copy()
        for chunk in self._pending:
            digest.update(chunk)
        return digest.hexdigest()

    async def write(self, chunk: bytes) -> None:
        self._pending.append(chunk)
        self._pending_bytes += len(chunk)
        if self._pending_bytes >= BATCH_BYTES:
            await to_thread.run_sync(self._write_pending)

    async def publish(self) -> None:
        await to_thread.run_sync(self._publish)

    async def discard(self) -> None:
        if self._directory is not None:
            await to_thread.run_sync(self._discard)

    def _write_pending(self) -> None:
        self._open_directory()  # a closed descriptor's number may be another file's by now
        content = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        with writing(self._target):
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        self._digest.update(content)
        self._written_bytes += len(content)
        self._pending, self._pending_bytes = [], 0

    def _publish(self) -> None:
        directory = self._open_directory()
        self._write_pending()
        with writing(self._target):
            # The file is as old as its appearance, not its last byte: a hash kept beside the older file
            # may have been written in between, and would pass for this one's. By the file system's own
            # clock (no explicit time), the one that will date the hash file.
            os.utime(self._file)
            os.fsync(self._file)
            os.rename(self._temporary, self._name, src_dir_fd=directory, dst_dir_fd=directory)
            self._close()
            try:
                beneath.sync_open_directory(directory)
            finally:
                os.close(directory)

    def _discard(self) -> None:
        directory = self._open_directory()
        self._close()
        try:
            with writing(self._target):
                os.unlink(self._temporary, dir_fd=directory)
        finally:
            os.close(directory)

    def _open_directory(self) -> int:
        if self._directory is None:
            msg = f"{self._target} was published or discarded before"
            raise RuntimeError(msg)
        return self._directory

    def _close(self) -> None:
        self._directory = None
        os.close(self._file)


class LocalOutgoingFile:
    """An `OutgoingFile` that reads through a descriptor, so its name may go or change."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._file: int | None = descriptor
        self.size_bytes = os.fstat(descriptor).st_size

    async def chunks(self) -> AsyncIterator[bytes]:
        offset = 0
        while offset < self.size_bytes:
            chunk = await to_thread.run_sync(self._read, offset)
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
            chunk = self._read(offset + done)
            if not chunk:
                raise FileUnreadable(self._path, f"it ends at byte {offset + done} of {self.size_bytes}")
            digest.update(chunk)
            done += len(chunk)
        return done

    def _read(self, offset: int) -> bytes:
        if self._file is None:
            raise FileUnreadable(self._path, "it was closed")
        with reading(self._path):
            return os.pread(self._file, min(CHUNK_BYTES, self.size_bytes - offset), offset)


def _refuse_directory(name: str, directory: int) -> None:
    try:
        status = os.stat(name, dir_fd=directory)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError("a directory stands in the way")
