"""Files on web servers, over HTTP."""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ...domain.errors import ArtifactMissing, ArtifactUnavailable, DownloadRefused, UnsupportedSource
from ...domain.masking import mask_url
from ...domain.messages.error_text import go_quote
from ...domain.ports.downloads import Download

if TYPE_CHECKING:
    import ssl

    import httpx

_REDIRECTS = 10
_SCHEMES = ("http://", "https://")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416
_GONE = frozenset({404, 410})
_TOO_MANY = frozenset({408, 425, 429})  # refusals of the moment


@dataclass(frozen=True)
class _HttpDownload:
    response: "httpx.Response"
    shown: str
    starts_at: int
    total_bytes: int | None

    async def chunks(self) -> AsyncIterator[bytes]:
        with _errors(self.shown):
            # As they come, not gathered to larger pieces: what is here when the connection breaks is kept.
            async for chunk in self.response.aiter_raw():
                yield chunk


@dataclass(frozen=True)
class HttpDownloads:
    """`Downloads` with a connection for each file, through proxies where the environment names them.

    Redirects are followed, credentials in a url stay with their host. Content comes as it is stored: no
    encoding is asked for, so that sizes, parts and hashes mean the file.
    """

    connect_s: float = 20.0
    silence_s: float = 60.0
    size_s: float = 5.0

    @asynccontextmanager
    async def open(self, url: str, *, start: int = 0) -> AsyncIterator[Download]:
        if not url.startswith(_SCHEMES):
            raise UnsupportedSource(url, supported=_SCHEMES)
        shown = mask_url(url)
        headers = {"Range": f"bytes={start}-"} if start else {}
        with _errors(shown):
            async with self._client() as client, client.stream("GET", url, headers=headers) as response:
                if response.status_code == _RANGE_NOT_SATISFIABLE and start:
                    raise ArtifactUnavailable(shown, "the file is shorter than the part we have")
                _require_success(response, shown)
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
        import httpx  # late: a worker that fetches nothing need not load it

        return httpx.AsyncClient(
            follow_redirects=True,
            max_redirects=_REDIRECTS,
            verify=_trusted(),
            timeout=httpx.Timeout(
                silence_s or self.silence_s, connect=min(self.connect_s, silence_s or 60.0)
            ),
            headers={
                "User-Agent": f"LocalAI-worker/{metadata.version('localai-worker')} ({sys.platform})",
                "Accept-Encoding": "identity",
            },
        )


@cache
def _trusted() -> "ssl.SSLContext":
    """The system's certificates: reading them takes longer than a small file."""
    import httpx

    return httpx.create_ssl_context()


class _errors:  # noqa: N801 - a context manager that reads as a function
    """Foreign exceptions stop here."""

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        import httpx

        if isinstance(error, httpx.TimeoutException):
            raise ArtifactUnavailable(
                self._shown, f"the server was silent for too long ({error!r})"
            ) from error
        if isinstance(error, httpx.HTTPError | httpx.InvalidURL | UnicodeError):
            reason = mask_url(str(error)) or type(error).__name__
            raise ArtifactUnavailable(self._shown, reason) from error


def _require_success(response: Any, shown: str) -> None:
    status = response.status_code
    if response.is_success:
        return
    problem = f"failed to download url {go_quote(shown)}, invalid status code {status}"
    if status in _GONE:
        raise ArtifactMissing(shown, problem)
    if response.is_client_error and status not in _TOO_MANY:
        raise DownloadRefused(shown, problem)
    raise ArtifactUnavailable(shown, problem)


def _extent(response: Any, start: int) -> tuple[int, int | None]:
    """Where the content of `response` begins, and how long the whole file is."""
    if response.status_code == _PARTIAL_CONTENT:
        found = _RANGE.fullmatch(response.headers.get("content-range", "").strip())
        if found is not None and int(found[1]) == start:
            return start, None if found[2] == "*" else int(found[2])
        raise ArtifactUnavailable(str(response.url), "the server sent another part than was asked for")
    length = response.headers.get("content-length", "")
    return 0, int(length) if length.isdigit() else None
