"""Uploads that come in pieces: what is held of a file, and whether the next piece fits."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from anyio import CancelScope

from .content_range import ContentRange
from .errors import FileInUse
from .file_hashes import FileHashes
from .ports.filesystem import FileSystem, PartialFile, PartialStat, RootedPath
from .upload import RangedUpload, check_hash, publish
from .upload_errors import HashMismatch, OtherUploadHeld, RangeNotHeld, SidecarRefused

log = logging.getLogger(__name__)

# A connection that broke without a word looks like one that is slow. Its client is back within a second,
# and must not be kept waiting until the old connection is given up.
STUCK_S = 15.0


@dataclass
class ResumeUploads:
    """Ranged uploads of a node, at most one a place at a time; the loser is told to try again (416).

    What came is kept under a private name, so that the file of that name stays the old one until the new
    one is whole and hashes to what was declared: upstream appends to the file itself.

    Source: LocalAI core/services/nodes/file_transfer_server.go (newer).
    """

    filesystem: FileSystem
    hashes: FileHashes
    _running: dict[Path, RangedUpload] = field(default_factory=dict)

    async def held(self, place: RootedPath) -> PartialStat | None:
        """What is held of an upload to `place` whose hash is known and that is not whole.

        One that has all its bytes, because its worker ended before it could check them, is finished or
        dropped here: nobody would ever send the missing none.

        Raises:
            PathEscapes, FileUnreadable, FileUnwritable: as the file system says.
        """
        found = await self.filesystem.find_partial(place)
        if found is None or not found.sha256 or not found.size_bytes:
            return None
        if found.size_bytes < found.total_bytes:
            return found
        return found if await self._complete(place, found) is None else None

    async def start(
        self, place: RootedPath, span: ContentRange, sha256: str | None, *, mode: int
    ) -> RangedUpload:
        """Receive bytes `span` of a file that will hash to `sha256` (None: not declared).

        From byte 0 it starts anew, whatever is held.

        Raises:
            RangeNotHeld: the bytes before `span` are not held, or another attempt is running.
            OtherUploadHeld: they are of another file.
            PathEscapes, NoSpace, FileUnwritable, FileUnreadable: as the file system says.
        """
        if span.start:
            await self._check_continues(place, span, sha256 or "")
        sink = await self._sink(place, span, sha256 or "", mode)
        upload = RangedUpload(place, sink, self.hashes, sha256, span)
        self._running[place.path] = upload
        return upload

    def ended(self, upload: RangedUpload) -> None:
        """Forget an upload that is finished or aborted."""
        if self._running.get(upload.place.path) is upload:
            del self._running[upload.place.path]

    async def _sink(self, place: RootedPath, span: ContentRange, sha256: str, mode: int) -> PartialFile:
        """The partial file of `place`, as long as `span` says."""
        try:
            sink = await self._open(place, sha256, span.total, mode)
            if span.start == 0 and sink.size_bytes:
                await sink.discard()
                sink = await self._open(place, sha256, span.total, mode)
        except FileInUse as error:
            found = await self.filesystem.find_partial(place)
            held_bytes = found.size_bytes if found else 0
            raise RangeNotHeld(span, held_bytes, "another upload of this file is running") from error
        if sink.size_bytes == span.start:
            return sink
        with CancelScope(shield=True):  # another attempt ended since we looked
            await sink.keep()
        raise RangeNotHeld(span, sink.size_bytes)

    async def _check_continues(self, place: RootedPath, span: ContentRange, sha256: str) -> None:
        found = await self.filesystem.find_partial(place)
        if found is None:
            raise RangeNotHeld(span, 0)
        if (found.sha256, found.total_bytes) == (sha256, span.total):
            if found.size_bytes != span.start:
                raise RangeNotHeld(span, found.size_bytes)
            return
        try:
            await self.filesystem.drop_partial(place)
        except FileInUse as error:
            raise RangeNotHeld(span, found.size_bytes, "an upload of another file is running") from error
        raise OtherUploadHeld(found.sha256, sha256)

    async def _open(self, place: RootedPath, sha256: str, total_bytes: int, mode: int) -> PartialFile:
        try:
            return await self.filesystem.open_partial(
                place, sha256=sha256, total_bytes=total_bytes, mode=mode
            )
        except FileInUse:
            running = self._running.get(place.path)
            if running is None or not await running.take_over(idle_s=STUCK_S):
                raise
            log.info("upload taken over from an attempt that is stuck: %s", place.path)
        return await self.filesystem.open_partial(place, sha256=sha256, total_bytes=total_bytes, mode=mode)

    async def _complete(self, place: RootedPath, found: PartialStat) -> Path | None:
        """Publish a partial file that has all its bytes, or drop it; None while somebody else does."""
        try:
            sink = await self.filesystem.open_partial(
                place, sha256=found.sha256, total_bytes=found.total_bytes
            )
        except FileInUse:
            return None
        try:
            await check_hash(sink, found.sha256)
            await publish(place, sink, self.hashes)
            log.info("upload completed that its worker could not finish: %s", place.path)
        except (HashMismatch, SidecarRefused) as error:
            log.warning("upload dropped that its worker could not finish: %s: %s", place.path, error)
            await sink.discard()
        finally:
            with CancelScope(shield=True):
                await sink.keep()
        return place.path
