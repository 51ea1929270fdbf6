"""Files put together from ranges. Whatever blocks for long runs in worker threads.

While a file is assembled, a note of what has arrived follows its last byte: one file, one inode, nothing to
keep in step. Publishing cuts the note off.
"""

import hashlib
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from anyio import CapacityLimiter, to_thread

from ...domain.byte_spans import ByteSpan, ByteSpans
from ...domain.errors import FileUnreadable, FileUnwritable
from ...domain.ports.filesystem import FileKind, FileStat, RootedPath
from ...domain.ports.ranged_files import Algorithm
from . import assembly_note, beneath, directories
from .assembly_note import NOTE_BYTES, Note
from .failures import reading, writing
from .hidden_file import open_hidden
from .preallocate import take_room
from .settling import Settler, Unsettled
from .source_file import HASH_STEP_BYTES, HASHES, READ_BYTES

WAIT_S = 0.2  # for a byte that is to be hashed, between two chances to be cancelled
NOTE_EVERY_BYTES = 64 * 1024 * 1024  # what a crash may cost, at most


@dataclass
class _State:
    """What the threads share, under `changed`."""

    spans: ByteSpans
    open: bool = True
    noted_bytes: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def has(self, at: int) -> bool:
        """Whether the byte `at` is there."""
        return self.spans.reach(at) > at


class LocalAssembledFile:
    """An `AssembledFile` under a hidden name in the directory of its target."""

    def __init__(self, place: RootedPath, version: str, size_bytes: int, settler: Settler) -> None:
        """Open or create the hidden file; blocks.

        Raises:
            PathEscapes, NoSpace, FileUnwritable: see `RangedFiles.assemble`.
        """
        self.size_bytes = size_bytes
        self._target, self._version = place.path, version
        self._hashing = CapacityLimiter(4)
        self._published = False
        self._settler = settler
        with writing(self._target):
            self._directory, self._name = beneath.open_entry(place, create=True)
            try:
                directories.refuse_directory(self._name, self._directory)
                self._temporary, self._file = open_hidden(self._name, self._directory)
                try:
                    note = self._begin()
                except BaseException:
                    os.unlink(self._temporary, dir_fd=self._directory)
                    os.close(self._file)
                    raise
            except BaseException:
                os.close(self._directory)
                raise
        self._state = _State(note.spans if note else ByteSpans())
        self._state.noted_bytes = self._state.spans.total_bytes

    def _begin(self) -> Note | None:
        note = Note.read(self._file)
        if note is not None and (note.version, note.size_bytes) == (self._version, self.size_bytes):
            return note
        os.ftruncate(self._file, 0)
        take_room(self._file, self.size_bytes + NOTE_BYTES)
        return None

    @property
    def missing(self) -> tuple[ByteSpan, ...]:
        with self._state.changed:
            return self._state.spans.missing(self.size_bytes)

    def write_at(self, offset: int, chunk: memoryview) -> None:
        if offset + len(chunk) > self.size_bytes:
            raise FileUnwritable(self._target, f"more than the {self.size_bytes} bytes it is to have")
        at, rest = offset, chunk
        with writing(self._target):
            while rest:
                written = os.pwrite(self._file, rest, at)
                at, rest = at + written, rest[written:]
        with self._state.changed:
            self._state.spans.add(offset, at)
            self._state.changed.notify_all()
            total = self._state.spans.total_bytes
            if total - self._state.noted_bytes < NOTE_EVERY_BYTES or not self._state.open:
                return
            self._state.noted_bytes = total
            with writing(self._target):
                self._write_note(assembly_note.boot_id())

    async def digest(self, algorithm: Algorithm, span: ByteSpan) -> bytes:
        hashed = HASHES[algorithm](usedforsecurity=False)
        at = span.start
        while at < span.stop:
            at = await to_thread.run_sync(self._hash_from, at, span.stop, hashed, limiter=self._hashing)
        return hashed.digest()

    def _hash_from(self, start: int, stop: int, hashed: "hashlib._Hash") -> int:
        """Hash what is there from `start` on, between two chances to be cancelled; where it ended."""
        with self._state.changed:
            self._state.changed.wait_for(lambda: self._state.has(start) or not self._state.open, WAIT_S)
            reach = self._state.spans.reach(start)
            if reach == start:
                if not self._state.open:
                    raise FileUnreadable(self._target, f"it was given up before byte {start} came")
                return start
        at, stop = start, min(reach, stop, start + HASH_STEP_BYTES)
        buffer = memoryview(bytearray(min(READ_BYTES, stop - at)))
        with reading(self._target):
            while at < stop:
                got = os.preadv(self._file, [buffer[: stop - at]], at)
                hashed.update(buffer[:got])
                at += got
        return at

    async def publish(self) -> FileStat:
        return await to_thread.run_sync(self._publish)

    async def settle(self) -> None:
        if self._published:
            self._published = False
            await self._settler.settle(Unsettled(self._target, self._file, self._directory))

    async def keep(self) -> None:
        await to_thread.run_sync(self._keep)

    async def discard(self) -> None:
        await to_thread.run_sync(self._discard)

    def _publish(self) -> FileStat:
        if self.missing:
            msg = f"{self._target} lacks {self.missing}"
            raise ValueError(msg)
        with writing(self._target):
            os.ftruncate(self._file, self.size_bytes)
            os.utime(self._file)  # as old as its appearance, as every file of ours
            os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            status = os.fstat(self._file)
        self._published = True
        with self._state.changed:
            self._state.open = False
        return FileStat(FileKind.FILE, status.st_size, status.st_mtime_ns, status.st_ino)

    def _keep(self) -> None:
        if not self._give_up():
            return
        try:
            with writing(self._target):
                os.fdatasync(self._file)
                self._write_note("")
                os.fsync(self._file)
        finally:
            self._close()

    def _discard(self) -> None:
        if not self._give_up():
            return
        try:
            with writing(self._target), suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._directory)
        finally:
            self._close()

    def _give_up(self) -> bool:
        with self._state.changed:
            was_open, self._state.open = self._state.open, False
            self._state.changed.notify_all()
        return was_open

    def _write_note(self, boot: str) -> None:
        note = Note(self._version, self.size_bytes, boot, self._state.spans)
        os.pwrite(self._file, note.to_bytes(), self.size_bytes)

    def _close(self) -> None:
        os.close(self._file)
        os.close(self._directory)
