"""Files from web servers, whole and verified, or not at all; what came of one is kept for later."""

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import anyio

from .attempts import in_attempts
from .disk_room import DiskRoom
from .errors import ArtifactInvalid, ArtifactUnavailable
from .git_blob import git_blob
from .masking import mask_url
from .ports.downloads import Download, Downloads
from .ports.filesystem import FileSystem, IncomingFile, PartialFile, PartialStat, RootedPath

log = logging.getLogger(__name__)

_HASH = re.compile(r"[0-9a-fA-F]{64}")
_MODE = 0o600  # as upstream's
_TOLD_EVERY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedFile:
    """A file on a web server. `sha256` ("") and `size_bytes` (None) need not be known; a `token` opens it.

    `blob_id`: Git's hash of it, which needs the size; "" where another hash tells enough.
    """

    url: str
    sha256: str = ""
    size_bytes: int | None = None
    token: str = ""
    blob_id: str = ""

    @property
    def shown(self) -> str:
        """The url, without passwords."""
        return mask_url(self.url)


@dataclass
class DownloadFile:
    """Fetches files; three attempts each, `first_wait_s` and twice as much apart.

    A file with a known hash goes on where an earlier attempt ended, also after a restart. Without one
    nobody could tell whether the rest still belongs to the part, so it begins anew. `floor_bytes` of the
    disk stay free.
    Source: LocalAI pkg/downloader/uri.go (which splices what has changed in between).
    """

    filesystem: FileSystem
    downloads: Downloads
    attempts: int = 3
    first_wait_s: float = 2.0
    cleanup_s: float = 30.0
    floor_bytes: int = 0

    @asynccontextmanager
    async def together(self) -> AsyncIterator["DownloadFile"]:
        """The same for many files; see `Downloads.together`."""
        async with self.downloads.together() as downloads:
            yield replace(self, downloads=downloads)

    async def fetch(self, url: str, place: RootedPath, *, sha256: str = "") -> str:
        """Put the file at `url` at `place`; what was there stays until the new one is whole.

        Returns its SHA-256.

        Raises:
            ArtifactMissing, DownloadRefused, UnsupportedSource: asking again cannot help.
            ArtifactUnavailable: every attempt failed.
            ArtifactInvalid: it has another hash, or `sha256` is none.
            PathEscapes, FileInUse, NoSpace, FileUnwritable: it cannot be written.
        """
        return await self.fetch_wanted(WantedFile(url=url, sha256=sha256), place)

    async def fetch_wanted(self, wanted: WantedFile, place: RootedPath) -> str:
        """As `fetch`; ArtifactInvalid also where the file has another size."""
        if wanted.sha256 and not _HASH.fullmatch(wanted.sha256):
            raise ArtifactInvalid(wanted.shown, f"{wanted.sha256!r} is no SHA-256; 64 hex digits are wanted")
        return await in_attempts(
            partial(self._attempt, wanted, place, wanted.sha256.lower()),
            attempts=self.attempts,
            first_wait_s=self.first_wait_s,
        )

    async def _attempt(self, wanted: WantedFile, place: RootedPath, sha256: str) -> str:
        kept = await self.filesystem.find_partial(place)
        start = 0
        if kept is not None and sha256 and kept.sha256 == sha256 and kept.size_bytes <= kept.total_bytes:
            start = kept.size_bytes
            if start == kept.total_bytes:
                if await self._publish_whole(place, kept):
                    return sha256
                start = 0
        elif kept is not None:
            await self.filesystem.drop_partial(place)
        async with self.downloads.open(wanted.url, start=start, token=wanted.token) as download:
            total_bytes = _total_bytes(wanted, download)
            room = DiskRoom(self.filesystem, place.path, self.floor_bytes)
            await room.require(max(0, (total_bytes or 0) - download.starts_at), "the file")
            file, partial_file = await self._open(place, sha256, download, total_bytes)
            ended = False
            try:
                blob_id = await self._receive(wanted, download, file, total_bytes, room)
                found = await file.sha256()
                if sha256 and found != sha256:
                    await file.discard()
                    raise ArtifactInvalid(wanted.shown, f"its SHA-256 is {found}, should be {sha256}")
                if wanted.blob_id and blob_id != wanted.blob_id:
                    raise ArtifactInvalid(
                        wanted.shown, f"Git's hash of it is {blob_id}, should be {wanted.blob_id}"
                    )
                await file.publish()
                ended = True
            finally:
                if not ended:
                    with anyio.move_on_after(self.cleanup_s, shield=True):
                        await (partial_file.keep() if partial_file is not None else file.discard())
        return found

    async def _publish_whole(self, place: RootedPath, kept: PartialStat) -> bool:
        """Let a part appear that lacks nothing (its worker ended just then); a wrong one is dropped."""
        file = await self.filesystem.open_partial(
            place, sha256=kept.sha256, total_bytes=kept.total_bytes, mode=_MODE
        )
        looked = False
        try:
            right = await file.sha256() == kept.sha256
            looked = True
            if right:
                await file.publish()
            return right
        finally:
            with anyio.move_on_after(self.cleanup_s, shield=True):
                await (file.discard() if looked else file.keep())

    async def _open(
        self, place: RootedPath, sha256: str, download: Download, total_bytes: int | None
    ) -> tuple[IncomingFile, PartialFile | None]:
        """The file to write to, at the byte where `download` begins; a partial one if it can go on later."""
        if not sha256 or total_bytes is None:
            return await self.filesystem.open_incoming(place, mode=_MODE), None
        partial_file = await self.filesystem.open_partial(
            place, sha256=sha256, total_bytes=total_bytes, mode=_MODE
        )
        if partial_file.size_bytes > download.starts_at:  # the server gives no parts, or it is an overlap
            await partial_file.discard()
            partial_file = await self.filesystem.open_partial(
                place, sha256=sha256, total_bytes=total_bytes, mode=_MODE
            )
        return partial_file, partial_file

    async def _receive(
        self,
        wanted: WantedFile,
        download: Download,
        file: IncomingFile,
        total_bytes: int | None,
        room: DiskRoom,
    ) -> str:
        """Write what comes; Git's hash of it, which means something where all of it came now."""
        if file.size_bytes != download.starts_at:
            raise ArtifactUnavailable(wanted.shown, "the part on disk is not the one that was asked for")
        blob = git_blob(total_bytes or 0)
        told_s = anyio.current_time()
        async for chunk in download.chunks():
            if total_bytes is not None and file.size_bytes + len(chunk) > total_bytes:
                raise ArtifactInvalid(wanted.shown, f"more than the {total_bytes} bytes it should have")
            await file.write(chunk)
            if wanted.blob_id:
                blob.update(chunk)
            await room.wrote(len(chunk))
            if anyio.current_time() - told_s >= _TOLD_EVERY_S:
                told_s = anyio.current_time()
                log.info("on its way: url=%s bytes=%d of=%s", wanted.shown, file.size_bytes, total_bytes)
        if total_bytes is not None and file.size_bytes != total_bytes:
            missing = total_bytes - file.size_bytes
            raise ArtifactUnavailable(wanted.shown, f"it ended {missing} bytes early")
        return blob.hexdigest()


def _total_bytes(wanted: WantedFile, download: Download) -> int | None:
    told = download.total_bytes
    if wanted.size_bytes is not None and told is not None and told != wanted.size_bytes:
        raise ArtifactInvalid(wanted.shown, f"it has {told} bytes, should have {wanted.size_bytes}")
    return told if wanted.size_bytes is None else wanted.size_bytes
