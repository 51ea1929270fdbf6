"""Output files on disk, looked at a few times a second: a look at a file that has not grown is one stat."""

import logging
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import anyio
from anyio import to_thread

from ...domain.ports.outputs import NewOutput, full_part

log = logging.getLogger(__name__)

_READ_BYTES = 128 * 1024  # of one file in one look; what came before is left out
_SHORTEST_WAIT_S = 0.05
_LONGEST_WAIT_S = 0.4
_COPY_BYTES = 1024 * 1024


@dataclass(slots=True)
class _Followed:
    """No descriptor is kept: with hundreds of backends they would add up to the limit of a process."""

    path: Path
    offset: int
    unread: int = 0  # bytes that were copied away before they were read

    def has_grown(self) -> bool:
        return _size(self.path) != self.offset

    def read(self, limit_bytes: int) -> NewOutput:
        """What is new, or its end where it is much; a file of `limit_bytes` is copied aside and emptied."""
        if not self.has_grown():
            return NewOutput(self.path, b"")
        with self.path.open("r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            begin = self.offset if self.offset <= size else 0  # somebody may have emptied it
            start = file.seek(max(begin, size - _READ_BYTES))
            data = file.read(size - start) or b""
            new = NewOutput(self.path, data, start - begin + self.unread)
            self.offset, self.unread = start + len(data), 0
            if self.offset >= limit_bytes:
                self._move_aside(file)
        return new

    def _move_aside(self, file: FileIO) -> None:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            with full_part(self.path).open("wb") as copy:
                while chunk := file.read(_COPY_BYTES):
                    copy.write(chunk)
        except OSError as error:  # a full disk above all: it is emptied all the more
            log.warning("full output is not kept: path=%s error=%s", self.path, error)
            with suppress(OSError):
                full_part(self.path).unlink(missing_ok=True)
        file.truncate(0)
        self.unread, self.offset = max(0, size - self.offset), 0


@dataclass
class LocalOutputFiles:
    """`OutputFiles` on this machine; a file of `limit_bytes` is emptied."""

    limit_bytes: int = 10 * 1024 * 1024
    _followed: dict[Path, _Followed] = field(default_factory=dict)
    _more: anyio.Event = field(default_factory=anyio.Event)
    _reading: anyio.Lock = field(default_factory=anyio.Lock)

    def follow(self, path: Path, *, replay_bytes: int) -> None:
        try:
            offset = max(0, _size(path) - replay_bytes)
        except OSError:
            offset = 0  # the first look tells why
        self._followed[path] = _Followed(path, offset)
        self._more.set()

    async def news(self) -> tuple[NewOutput, ...]:
        wait_s = _SHORTEST_WAIT_S
        while True:
            if not self._followed:
                self._more = anyio.Event()
                await self._more.wait()
            grown = [each for each in tuple(self._followed.values()) if self._has_grown(each)]
            if grown:
                async with self._reading:
                    found = await self._read(grown)
                if found:
                    return found
            await anyio.sleep(wait_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    async def finish(self, path: Path) -> NewOutput:
        followed = self._followed.get(path)
        if followed is None:
            return NewOutput(path, b"")
        async with self._reading:
            found = await self._read([followed]) if self._has_grown(followed) else ()
        if self._followed.get(path) is followed:
            del self._followed[path]
        return found[0] if found else NewOutput(path, b"")

    async def prune(self, directory: Path, *, keep: Collection[Path], limit_bytes: int) -> None:
        await to_thread.run_sync(_prune, directory, {*keep, *self._followed}, limit_bytes)

    async def _read(self, grown: list[_Followed]) -> tuple[NewOutput, ...]:
        found = []
        for followed in grown:
            try:
                with anyio.CancelScope(shield=True):  # what was read must be told
                    found.append(await to_thread.run_sync(followed.read, self.limit_bytes))
            except OSError as error:
                self._give_up(followed, error)
        return tuple(new for new in found if new.data or new.skipped_bytes)

    def _has_grown(self, followed: _Followed) -> bool:
        try:
            return followed.has_grown()
        except OSError as error:
            self._give_up(followed, error)
            return False

    def _give_up(self, followed: _Followed, error: OSError) -> None:
        if self._followed.get(followed.path) is followed:
            del self._followed[followed.path]
            log.warning("output is not followed any more: path=%s error=%s", followed.path, error)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _prune(directory: Path, keep: Collection[Path], limit_bytes: int) -> None:
    taken, files = 0, []
    try:
        for path in directory.iterdir():
            status = path.stat()
            taken += status.st_size
            files.append((status.st_mtime_ns, status.st_size, path))
        for _, size, path in sorted(files):
            if taken <= limit_bytes:
                return
            if path not in keep and path.is_file():
                path.unlink()
                taken -= size
                log.info("old output removed: path=%s size_bytes=%d", path, size)
    except FileNotFoundError:
        return  # no directory yet, or somebody else cleans up
    except OSError as error:
        log.warning("old output cannot be removed: directory=%s error=%s", directory, error)
