"""Files on web servers in memory, for tests of code that downloads."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from anyio import sleep
from anyio.lowlevel import checkpoint

from ...domain.errors import ArtifactMissing, ArtifactUnavailable, DownloadRefused, UnsupportedSource
from ...domain.ports.downloads import Download

_CHUNK_BYTES = 4096
_SCHEMES = ("http://", "https://")


@dataclass(frozen=True)
class _InMemoryDownload:
    url: str
    content: bytes
    starts_at: int
    total_bytes: int | None
    breaks_at: int | None
    pause_s: float

    async def chunks(self) -> AsyncIterator[bytes]:
        end = len(self.content) if self.breaks_at is None else min(self.breaks_at, len(self.content))
        for at in range(self.starts_at, end, _CHUNK_BYTES):
            await sleep(self.pause_s)
            yield self.content[at : min(at + _CHUNK_BYTES, end)]
        if self.breaks_at is not None:
            raise ArtifactUnavailable(self.url, "the connection broke")


@dataclass
class InMemoryDownloads:
    """`Downloads` of the `files`, by url; remembers what was `asked` for, with the first byte.

    A url in `breaks` breaks off at that byte, once; those in `refused` are forbidden, those in `closed` open
    to a token alone. `gives_parts` and `tells_size`: what its servers can; they pause `pause_s` before each
    4 KiB.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    closed: dict[str, str] = field(default_factory=dict)
    offline: bool = False
    gives_parts: bool = True
    tells_size: bool = True
    pause_s: float = 0.0
    asked: list[tuple[str, int]] = field(default_factory=list)

    @asynccontextmanager
    async def together(self) -> AsyncIterator["InMemoryDownloads"]:
        await checkpoint()
        yield self

    @asynccontextmanager
    async def open(self, url: str, *, start: int = 0, token: str = "") -> AsyncIterator[Download]:
        if not url.startswith(_SCHEMES):
            raise UnsupportedSource(url, supported=_SCHEMES)
        await checkpoint()
        self.asked.append((url, start))
        if self.offline:
            raise ArtifactUnavailable(url, "the in-memory servers are set offline")
        if url in self.refused or self.closed.get(url, token) != token:
            raise DownloadRefused(url, "forbidden")
        if url not in self.files:
            raise ArtifactMissing(url, "nothing is stored under it")
        content = self.files[url]
        if start > len(content):
            raise ArtifactUnavailable(url, "the file is shorter than that")
        total = len(content) if self.tells_size else None
        starts_at = start if self.gives_parts else 0
        yield _InMemoryDownload(url, content, starts_at, total, self.breaks.pop(url, None), self.pause_s)

    async def size(self, url: str) -> int | None:
        await checkpoint()
        return len(self.files[url]) if url in self.files and self.tells_size and not self.offline else None
