"""One upload on its way in: limits while it is written, checks before it appears."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import anyio
from anyio import CancelScope

from .content_range import ContentRange
from .errors import FileInUse, FileUnwritable, PathEscapes, WorkerError
from .file_hashes import FileHashes
from .file_names import is_sidecar_name
from .ports.filesystem import ByteSource, IncomingFile, PartialFile, RootedPath
from .upload_errors import (
    BodyTooLong,
    BodyTooShort,
    HashMismatch,
    RangeNotHeld,
    SidecarRefused,
    UploadTooLarge,
)

log = logging.getLogger(__name__)


class Upload(Protocol):
    """A file being received; nobody sees it before it is whole.

    Exactly one of `finish` and `abort` ends it. Whatever fails, an older file in its place stays as it is.
    """

    @property
    def wanted_bytes(self) -> int | None:
        """How many more bytes of the body count; None when only the end of the body tells."""

    @property
    def size_bytes(self) -> int:
        """How much of the file is here, with what earlier attempts brought."""

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`.

        Raises:
            UploadTooLarge, BodyTooLong: more came than the limit or the declared length.
            RangeNotHeld: a later attempt has taken over.
            NoSpace, FileUnwritable: the bytes did not fit.
        """

    async def fill(self, source: ByteSource, *, most_bytes: int) -> int:
        """Append what `source` gives without a pause, at most `most_bytes` and what is wanted; how many.

        Raises:
            UploadTooLarge, RangeNotHeld, NoSpace, FileUnwritable: as `write`.
        """

    async def finish(self) -> Path | None:
        """Check what came; publish a whole file and return its path as the frontend is to know it.

        None when the file is not whole yet: later attempts bring the rest.

        Raises:
            BodyTooShort, HashMismatch, SidecarRefused: what came is not what was announced.
            RangeNotHeld: a later attempt has taken over.
            NoSpace, FileUnwritable: it cannot be published.
        """

    async def abort(self) -> None:
        """End it; idempotent, and nothing happens after `finish`. Runs to its end when cancelled."""


@dataclass
class WholeUpload:
    """An `Upload` that is whole after one attempt, or gone."""

    place: RootedPath
    sink: IncomingFile
    hashes: FileHashes
    declared_sha256: str | None  # lower case
    length_bytes: int | None  # None: not declared, the end of the body is the end of the file
    limit_bytes: int | None

    @property
    def wanted_bytes(self) -> int | None:
        return None if self.length_bytes is None else self.length_bytes - self.sink.size_bytes

    @property
    def size_bytes(self) -> int:
        return self.sink.size_bytes

    async def write(self, chunk: bytes) -> None:
        size_bytes = self.sink.size_bytes + len(chunk)
        if self.length_bytes is not None and size_bytes > self.length_bytes:
            raise BodyTooLong(self.length_bytes)
        self._check_limit(size_bytes)
        await self.sink.write(chunk)

    async def fill(self, source: ByteSource, *, most_bytes: int) -> int:
        wanted_bytes = self.wanted_bytes
        most_bytes = most_bytes if wanted_bytes is None else min(most_bytes, wanted_bytes)
        self._check_limit(self.sink.size_bytes + most_bytes)
        return await self.sink.fill(source, most_bytes=most_bytes)

    async def finish(self) -> Path:
        try:
            if self.length_bytes is not None and self.sink.size_bytes < self.length_bytes:
                raise BodyTooShort(self.sink.size_bytes, self.length_bytes)
            await check_hash(self.sink, self.declared_sha256)
            await publish(self.place, self.sink, self.hashes)
        except WorkerError:
            await self.abort()
            raise
        if self.sink.has_leftovers:
            await self._drop_parts()
        return self.place.path

    async def abort(self) -> None:
        with CancelScope(shield=True):
            await self.sink.discard()

    async def _drop_parts(self) -> None:
        """Parts of an upload in pieces are older than this file; one that still runs has its own say."""
        try:
            await self.hashes.filesystem.drop_partial(self.place)
        except FileInUse:
            return
        except (FileUnwritable, PathEscapes) as error:
            log.warning("parts of an earlier upload not removed: %s", error)

    def _check_limit(self, size_bytes: int) -> None:
        if self.limit_bytes is not None and size_bytes > self.limit_bytes:
            raise UploadTooLarge(size_bytes, self.limit_bytes)


@dataclass
class RangedUpload:
    """An `Upload` of bytes `span` of a file; what came of it is kept for the next attempt.

    Body bytes after the range are ignored, as upstream does. A file that turns out wrong, or does not fit,
    is dropped. `take_over` lets a later attempt have it while this one is stuck.
    """

    place: RootedPath
    sink: PartialFile
    hashes: FileHashes
    declared_sha256: str | None  # lower case
    span: ContentRange
    moved_s: float = field(default_factory=anyio.current_time)
    _busy: anyio.Lock = field(default_factory=anyio.Lock)
    _taken_over: bool = False

    @property
    def wanted_bytes(self) -> int:
        return self.span.end + 1 - self.sink.size_bytes

    @property
    def size_bytes(self) -> int:
        return self.sink.size_bytes

    async def write(self, chunk: bytes) -> None:
        async with self._busy:
            self._check_ours()
            if self.wanted_bytes:
                try:
                    await self.sink.write(chunk[: self.wanted_bytes])
                except FileUnwritable:
                    await self._drop()
                    raise
            self.moved_s = anyio.current_time()

    async def fill(self, source: ByteSource, *, most_bytes: int) -> int:
        async with self._busy:
            self._check_ours()
            try:
                count = await self.sink.fill(source, most_bytes=min(most_bytes, self.wanted_bytes))
            except FileUnwritable:
                await self._drop()
                raise
            if count:
                self.moved_s = anyio.current_time()
            return count

    async def finish(self) -> Path | None:
        async with self._busy:
            self._check_ours()
            if self.wanted_bytes:
                await self._keep()
                wanted_bytes = self.span.end + 1 - self.span.start
                raise BodyTooShort(self.sink.size_bytes - self.span.start, wanted_bytes)
            if self.sink.size_bytes < self.span.total:
                await self._keep()
                return None
            try:
                await check_hash(self.sink, self.declared_sha256)
                await publish(self.place, self.sink, self.hashes)
            except WorkerError:
                await self._drop()
                raise
            return self.place.path

    async def abort(self) -> None:
        with CancelScope(shield=True):
            async with self._busy:
                await self._keep()

    async def take_over(self, *, idle_s: float) -> bool:
        """End this attempt for a later one if it has not moved for `idle_s`; whether it is ended."""
        if self._busy.locked() or anyio.current_time() - self.moved_s < idle_s:
            return False
        async with self._busy:
            self._taken_over = True
            await self._keep()
        return True

    def _check_ours(self) -> None:
        if self._taken_over:
            raise RangeNotHeld(self.span, self.sink.size_bytes, "a later attempt has taken over")

    async def _keep(self) -> None:
        if self.sink.size_bytes:
            await self.sink.keep()
        else:
            await self.sink.discard()

    async def _drop(self) -> None:
        with CancelScope(shield=True):
            await self.sink.discard()


async def check_hash(sink: IncomingFile, declared_sha256: str | None) -> None:
    """Raise HashMismatch unless `sink` holds what was declared, if anything was."""
    if declared_sha256 is None:
        return
    got = await sink.sha256()
    if got != declared_sha256:
        raise HashMismatch(declared_sha256, got)


async def publish(place: RootedPath, sink: IncomingFile, hashes: FileHashes) -> None:
    """Publish `sink` at `place` with its hash beside it; one that would itself be such a hash must be true.

    Raises:
        SidecarRefused: it is not.
        NoSpace, FileUnwritable: as the file system says.
    """
    name = place.relative.name
    if not is_sidecar_name(name):
        await hashes.publish(place, sink)
    elif not await hashes.publish_sidecar(place, sink):
        raise SidecarRefused(name)
