"""Files from web servers, whole and verified, or not at all; what came of one is kept for later."""

import logging
import re
from dataclasses import dataclass

import anyio

from .errors import ArtifactInvalid, ArtifactMissing, ArtifactUnavailable, DownloadRefused, NoSpace
from .masking import mask_url
from .ports.downloads import Download, Downloads
from .ports.filesystem import FileSystem, IncomingFile, PartialFile, RootedPath

log = logging.getLogger(__name__)

_HASH = re.compile(r"[0-9a-fA-F]{64}")
_MODE = 0o600  # as upstream's


@dataclass
class DownloadFile:
    """Fetches files; three attempts each, `first_wait_s` and twice as much apart.

    A file with a known hash goes on where an earlier attempt ended, also after a restart. Without one
    nobody could tell whether the rest still belongs to the part, so it begins anew.
    Source: LocalAI pkg/downloader/uri.go (which splices what has changed in between).
    """

    filesystem: FileSystem
    downloads: Downloads
    attempts: int = 3
    first_wait_s: float = 2.0
    cleanup_s: float = 30.0

    async def fetch(self, url: str, place: RootedPath, *, sha256: str = "") -> None:
        """Put the file at `url` at `place`; what was there stays until the new one is whole.

        Raises:
            ArtifactMissing, DownloadRefused, UnsupportedSource: asking again cannot help.
            ArtifactUnavailable: every attempt failed.
            ArtifactInvalid: it has another hash, or `sha256` is none.
            PathEscapes, FileInUse, NoSpace, FileUnwritable: it cannot be written.
        """
        if sha256 and not _HASH.fullmatch(sha256):
            raise ArtifactInvalid(mask_url(url), f"{sha256!r} is no SHA-256; 64 hex digits are wanted")
        wanted = sha256.lower()
        for attempt in range(self.attempts):
            try:
                await self._attempt(url, place, wanted)
            except (ArtifactMissing, DownloadRefused):
                raise
            except (ArtifactUnavailable, ArtifactInvalid) as error:
                if attempt + 1 == self.attempts:
                    raise
                wait_s = self.first_wait_s * 2**attempt
                log.warning("download failed, next attempt in %g s: error=%s", wait_s, error)
                await anyio.sleep(wait_s)
            else:
                return

    async def _attempt(self, url: str, place: RootedPath, sha256: str) -> None:
        kept = await self.filesystem.find_partial(place)
        goes_on = kept is not None and bool(sha256) and kept.sha256 == sha256
        if kept is not None and (not goes_on or kept.size_bytes >= kept.total_bytes):
            await self.filesystem.drop_partial(place)  # a whole one that was never published: it is wrong
            goes_on = False
        start = kept.size_bytes if kept is not None and goes_on else 0
        async with self.downloads.open(url, start=start) as download:
            await self._require_room(place, download)
            file, partial = await self._open(place, sha256, download)
            ended = False
            try:
                await self._receive(url, download, file)
                found = await file.sha256() if sha256 else ""
                if found != sha256:
                    await file.discard()
                    raise ArtifactInvalid(mask_url(url), f"its SHA-256 is {found}, should be {sha256}")
                await file.publish()
                ended = True
            finally:
                if not ended:
                    with anyio.move_on_after(self.cleanup_s, shield=True):
                        await (partial.keep() if partial is not None else file.discard())

    async def _open(
        self, place: RootedPath, sha256: str, download: Download
    ) -> tuple[IncomingFile, PartialFile | None]:
        """The file to write to, at the byte where `download` begins; a partial one if it can go on later."""
        total_bytes = download.total_bytes
        if not sha256 or total_bytes is None:
            return await self.filesystem.open_incoming(place, mode=_MODE), None
        partial = await self.filesystem.open_partial(
            place, sha256=sha256, total_bytes=total_bytes, mode=_MODE
        )
        if partial.size_bytes > download.starts_at:  # the server gives no parts, or we asked for an overlap
            await partial.discard()
            partial = await self.filesystem.open_partial(
                place, sha256=sha256, total_bytes=total_bytes, mode=_MODE
            )
        return partial, partial

    async def _receive(self, url: str, download: Download, file: IncomingFile) -> None:
        if file.size_bytes != download.starts_at:
            raise ArtifactUnavailable(mask_url(url), "the part on disk is not the one that was asked for")
        total_bytes = download.total_bytes
        async for chunk in download.chunks():
            if total_bytes is not None and file.size_bytes + len(chunk) > total_bytes:
                raise ArtifactInvalid(mask_url(url), f"more than the {total_bytes} bytes it should have")
            await file.write(chunk)
        if total_bytes is not None and file.size_bytes != total_bytes:
            missing = total_bytes - file.size_bytes
            raise ArtifactUnavailable(mask_url(url), f"it ended {missing} bytes early")

    async def _require_room(self, place: RootedPath, download: Download) -> None:
        space = await self.filesystem.space(place.root)
        if space is None or download.total_bytes is None:
            return
        needed = download.total_bytes - download.starts_at
        if needed > space.available_bytes:
            reason = f"{needed} bytes are needed, {space.available_bytes} are available"
            raise NoSpace(place.path, reason)
