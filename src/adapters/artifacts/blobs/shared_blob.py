"""One blob while it comes in: several threads write its parts, others read it from the front."""

import fcntl
import os
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..writeback import begin_writeback

_SLOT = struct.Struct("<Q")
_HEAD = struct.Struct("<8sQQ")  # magic, size of the blob, size of a part
_MAGIC = b"lwparts1"
_MIB = 1 << 20
_MODE = 0o640


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a blob that one connection fetches: it begins at `offset` and ends before `end`."""

    number: int
    offset: int
    end: int
    edition: int = 0  # how often the blob was begun anew before


def part_bytes_for(size_bytes: int) -> int:
    """How large the parts of a blob are: few requests, and enough parts for every connection."""
    if size_bytes <= 256 * _MIB:
        return 8 * _MIB
    return 16 * _MIB if size_bytes <= 1024 * _MIB else 32 * _MIB


@dataclass
class SharedBlob:
    """The file `path` filled part by part; which bytes are there is kept in `<path>.parts`.

    The record is written after the bytes it speaks of, so whoever comes after a kill goes on at the
    byte. After a power cut it may promise bytes that never reached the disk: the digest tells.
    A blob that is complete has no record. Methods may be called from any thread.
    """

    digest: str
    path: Path
    size_bytes: int
    is_complete: bool = False
    part_bytes_for: Callable[[int], int] = part_bytes_for
    part_bytes: int = 0
    found_bytes: int = 0  # that were there when it was opened
    edition: int = 0
    users: int = 0
    _file: int = -1
    _record: int = -1
    _there: list[int] = field(default_factory=list)
    _claimed: set[int] = field(default_factory=set)
    _awaited: list[int] = field(default_factory=list)  # up to where those who read want it
    _news: threading.Condition = field(init=False)
    _freed: threading.Condition = field(init=False)

    def __post_init__(self) -> None:
        lock = threading.RLock()
        self._news = threading.Condition(lock)  # bytes are there
        self._freed = threading.Condition(
            lock
        )  # a part may be claimed: told once for each, not for each chunk

    def open(self) -> bool:
        """Open the file; False where another process is filling it.

        A record of another blob, or none, begins the blob anew.

        Raises:
            OSError: the file system refuses; FileNotFoundError for a complete blob that is gone.
        """
        if self.is_complete:
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            self.part_bytes = max(self.size_bytes, 1)
            self._there = [self.size_bytes]
        else:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._file = os.open(self.path, flags, _MODE)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                return False
            self._record = os.open(self.record_path, flags, _MODE)
            if not self._read_record():
                self._begin()
        self.found_bytes = self.there_bytes
        return True

    @property
    def record_path(self) -> Path:
        return self.path.with_name(self.path.name + ".parts")

    @property
    def there_bytes(self) -> int:
        """How many bytes are there, in all parts."""
        with self._news:
            return sum(self._there)

    @property
    def missing_bytes(self) -> int:
        return self.size_bytes - self.there_bytes

    def claim(self) -> Part | None:
        """The first part that is not whole and that nobody else fetches; None when there is none."""
        with self._news:
            for number, there in enumerate(self._there):
                size = min(self.part_bytes, self.size_bytes - number * self.part_bytes)
                if there < size and number not in self._claimed:
                    self._claimed.add(number)
                    offset = number * self.part_bytes
                    return Part(number, offset + there, offset + size, self.edition)
            return None

    def claim_all(self) -> Sequence[Part]:
        """All parts that are not whole; none while somebody fetches one."""
        with self._news:
            if self._claimed:
                return ()
        parts = []
        while (part := self.claim()) is not None:
            parts.append(part)
        return parts

    def release(self, part: Part) -> None:
        """Nobody fetches `part` any more."""
        with self._news:
            if part.edition == self.edition:
                self._claimed.discard(part.number)
            self._freed.notify_all()

    def write(self, part: Part, at: int, chunk: bytes) -> None:
        """Store `chunk`, which follows what is there of the claimed `part`, at `at`.

        Raises:
            OSError: the file system refuses.
        """
        rest, position = memoryview(chunk), at
        while rest:
            written = os.pwrite(self._file, rest, position)
            rest, position = rest[written:], position + written
        there = position - part.number * self.part_bytes
        with self._news:
            if part.edition == self.edition:
                os.pwrite(self._record, _SLOT.pack(there), _HEAD.size + _SLOT.size * part.number)
                self._there[part.number] = there
                if any(part.offset < goal <= position for goal in self._awaited):
                    self._news.notify_all()

    def read(
        self, position: int, size: int, *, wait_s: float, is_over: Callable[[], bool] = lambda: False
    ) -> bytes | None:
        """`size` bytes from `position`, as far as its part goes; b"" at the end.

        Fewer are returned when no more came within `wait_s`, or when `is_over`, and None when none did: many
        small chunks of a slow connection wake nobody.
        """
        if position >= self.size_bytes:
            return b""
        with self._news:
            after = (position // self.part_bytes + 1) * self.part_bytes
            goal = min(position + size, after, self.size_bytes)
            if self._there_up_to(position) < goal and not is_over():
                self._awaited.append(goal)
                self._news.wait(wait_s)
                self._awaited.remove(goal)
            end = self._there_up_to(position)
        if end <= position:
            return None
        return os.pread(self._file, min(size, end - position), position)

    def wait(self, wait_s: float, *, is_over: Callable[[], bool]) -> None:
        """Wait until somebody lets go of a part, but not when `is_over`."""
        with self._freed:
            if not is_over():
                self._freed.wait(wait_s)

    def wake(self) -> None:
        """Let those who wait see what else happened: for some of them it may be over."""
        with self._news:
            self._news.notify_all()
            self._freed.notify_all()

    def forget(self, edition: int) -> None:
        """Begin anew, because what `edition` of it holds is not what it should be."""
        with self._news:
            if edition == self.edition and not self.is_complete:
                self.edition += 1
                self._claimed.clear()
                self._begin()
                self.found_bytes = 0
        self.wake()

    def recorded_bytes(self) -> int:
        """How many bytes of it are there, without opening it to write; 0 where there is no sound record."""
        try:
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            self._record = os.open(self.record_path, os.O_RDONLY | os.O_CLOEXEC)
            return sum(self._there) if self._read_record() else 0
        except OSError:
            return 0
        finally:
            self.close()

    def begin_writeback(self) -> None:
        """Let the bytes that are there go to the disk; waits for nothing."""
        begin_writeback(self._file)

    def close(self) -> None:
        """Let go of the files; they stay."""
        for descriptor in (self._file, self._record):
            if descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)
        self._file = self._record = -1

    def _there_up_to(self, position: int) -> int:
        number = position // self.part_bytes
        return number * self.part_bytes + self._there[number]

    def _begin(self) -> None:
        self.part_bytes = self.part_bytes_for(self.size_bytes)
        count = -(-self.size_bytes // self.part_bytes)
        os.ftruncate(self._file, 0)
        os.ftruncate(self._file, self.size_bytes)
        os.ftruncate(self._record, 0)
        os.pwrite(
            self._record, _HEAD.pack(_MAGIC, self.size_bytes, self.part_bytes) + bytes(_SLOT.size * count), 0
        )
        self._there = [0] * count

    def _read_record(self) -> bool:
        """Whether the record is one of this blob, and the file as long as it says."""
        content = os.pread(self._record, _HEAD.size + _SLOT.size * 1_000_000, 0)
        if len(content) < _HEAD.size or os.fstat(self._file).st_size != self.size_bytes:
            return False
        magic, size_bytes, part_bytes = _HEAD.unpack_from(content)
        if magic != _MAGIC or size_bytes != self.size_bytes or part_bytes < 1:
            return False
        count = -(-size_bytes // part_bytes)
        if len(content) != _HEAD.size + _SLOT.size * count:
            return False
        there = [slot for (slot,) in _SLOT.iter_unpack(content[_HEAD.size :])]
        if any(slot > min(part_bytes, size_bytes - n * part_bytes) for n, slot in enumerate(there)):
            return False
        self.part_bytes, self._there = part_bytes, there
        return True
