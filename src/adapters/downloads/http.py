"""Files on web servers, over HTTP."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...domain.errors import ArtifactUnavailable, UnsupportedSource
from ...domain.masking import mask_url
from ...domain.ports.downloads import Download
from .web import bearer, require_success, web_client, web_errors

if TYPE_CHECKING:
    import httpx

_SCHEMES = ("http://", "https://")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416


@dataclass(frozen=True)
class _HttpDownload:
    response: "httpx.Response"
    shown: str
    starts_at: int
    total_bytes: int | None

    async def chunks(self) -> AsyncIterator[bytes]:
        with web_errors(self.shown):
            # As they come, not gathered to larger pieces: what is here when the connection breaks is kept.
            async for chunk in self.response.aiter_raw():
                yield chunk


@dataclass(frozen=True)
class HttpDownloads:
    """`Downloads` with a connection for each file, through proxies where the environment names them.

    Redirects are followed, credentials in a url stay with their host. Content comes as it is stored: no
    encoding is asked for, so that sizes, parts and hashes mean the file. With a `client` its connections
    are used, and kept.
    """

    connect_s: float = 20.0
    silence_s: float = 60.0
    size_s: float = 5.0
    client: "httpx.AsyncClient | None" = None

    @asynccontextmanager
    async def together(self) -> AsyncIterator["HttpDownloads"]:
        async with self._client() as client:
            yield replace(self, client=client)

    @asynccontextmanager
    async def open(self, url: str, *, start: int = 0, token: str = "") -> AsyncIterator[Download]:
        if not url.startswith(_SCHEMES):
            raise UnsupportedSource(url, supported=_SCHEMES)
        shown = mask_url(url)
        headers = bearer(token) | ({"Range": f"bytes={start}-"} if start else {})
        with web_errors(shown):
            lasting = nullcontext(self.client) if self.client is not None else self._client()
            async with lasting as client, client.stream("GET", url, headers=headers) as response:
                if response.status_code == _RANGE_NOT_SATISFIABLE and start:
                    raise ArtifactUnavailable(shown, "the file is shorter than the part we have")
                require_success(response, shown)
                yield _HttpDownload(response, shown, *_extent(response, start))

    async def size(self, url: str) -> int | None:
        import httpx

        if not url.startswith(_SCHEMES):
            return None
        try:
            async with self._client(self.size_s) as client:
                response = await client.head(url)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError):
            return None  # nobody tells
        length = response.headers.get("content-length", "")
        return int(length) if response.is_success and length.isdigit() else None

    def _client(self, silence_s: float | None = None) -> "httpx.AsyncClient":
        return web_client(silence_s or self.silence_s, connect_s=min(self.connect_s, silence_s or 60.0))


def _extent(response: Any, start: int) -> tuple[int, int | None]:
    """Where the content of `response` begins, and how long the whole file is."""
    if response.status_code == _PARTIAL_CONTENT:
        found = _RANGE.fullmatch(response.headers.get("content-range", "").strip())
        if found is not None and int(found[1]) == start:
            return start, None if found[2] == "*" else int(found[2])
        raise ArtifactUnavailable(str(response.url), "the server sent another part than was asked for")
    length = response.headers.get("content-length", "")
    return 0, int(length) if length.isdigit() else None
