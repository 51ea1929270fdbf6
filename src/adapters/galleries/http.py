"""Gallery documents on web servers: `http://` and `https://`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ...domain.errors import ArtifactInvalid, ArtifactUnavailable
from ...domain.masking import mask_url
from ...domain.messages.error_text import go_quote
from ...domain.ports.galleries import GalleryDocument
from .files import LARGEST_BYTES

if TYPE_CHECKING:
    import ssl

_REDIRECTS = 10  # as many as Go's client follows
_TAG, _DATE = "tag:", "date:"
_NOT_MODIFIED = 304


@dataclass(frozen=True)
class HttpDocuments:
    """Fetches over HTTP, through proxies where the environment names them.

    Redirects are followed; credentials in a url stay with their host. The version of a document is its
    ETag, else its date; a server that knows neither sends everything again.
    Source: LocalAI pkg/downloader/uri.go, ReadWithAuthorizationAndCallback.
    """

    limit_bytes: int = LARGEST_BYTES
    connect_s: float = 20.0
    silence_s: float = 60.0

    async def fetch(self, url: str, *, trusted_root: Path, known: str = "") -> GalleryDocument | None:
        del trusted_root  # for local files
        import httpx  # late: a worker that reads no gallery need not load it

        shown = mask_url(url)
        client = httpx.AsyncClient(
            follow_redirects=True,
            max_redirects=_REDIRECTS,
            verify=_trusted(),
            timeout=httpx.Timeout(self.silence_s, connect=self.connect_s),
            headers={"User-Agent": user_agent()},
        )
        try:
            async with client, client.stream("GET", url, headers=_conditions(known)) as response:
                if response.status_code == _NOT_MODIFIED and known:
                    return None
                if not response.is_success:
                    status = response.status_code
                    reason = f"failed to read url {go_quote(shown)}, invalid status code {status}"
                    raise ArtifactUnavailable(shown, reason)
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > self.limit_bytes:
                        raise ArtifactInvalid(shown, f"larger than {self.limit_bytes} bytes")
                return GalleryDocument(bytes(content), _version(response.headers))
        except httpx.TimeoutException as error:
            limit_s = self.connect_s if isinstance(error, httpx.ConnectTimeout) else self.silence_s
            raise ArtifactUnavailable(shown, f"the server was silent for {limit_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise ArtifactUnavailable(shown, mask_url(str(error)) or type(error).__name__) from error


@cache
def _trusted() -> "ssl.SSLContext":
    """The system's certificates: reading them takes longer than a small document."""
    import httpx

    return httpx.create_ssl_context()


def user_agent() -> str:
    """Who asks; LocalAI's own requests begin with the same word."""
    return f"LocalAI-worker/{metadata.version('localai-worker')} ({sys.platform})"


def _conditions(known: str) -> dict[str, str]:
    if known.startswith(_TAG):
        return {"If-None-Match": known.removeprefix(_TAG)}
    if known.startswith(_DATE):
        return {"If-Modified-Since": known.removeprefix(_DATE)}
    return {}


def _version(headers: Mapping[str, str]) -> str:
    if tag := headers.get("etag"):
        return _TAG + tag
    if date := headers.get("last-modified"):
        return _DATE + date
    return ""
