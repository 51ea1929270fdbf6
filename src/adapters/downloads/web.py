"""What every request to a web server has in common here: who asks, how long, and what an answer means."""

import sys
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ...domain.errors import ArtifactMissing, ArtifactUnavailable, DownloadRefused
from ...domain.masking import mask_url
from ...domain.messages.error_text import go_quote

if TYPE_CHECKING:
    import ssl

    import httpx

_REDIRECTS = 10
_GONE = frozenset({404, 410})
_TOO_MANY = frozenset({408, 425, 429})  # refusals of the moment


def web_client(silence_s: float, *, connect_s: float) -> "httpx.AsyncClient":
    """A client that follows redirects and takes content as it is stored; one for each use."""
    import httpx  # late: a worker that fetches nothing need not load it

    return httpx.AsyncClient(
        follow_redirects=True,
        max_redirects=_REDIRECTS,
        verify=_trusted(),
        timeout=httpx.Timeout(silence_s, connect=connect_s),
        headers={
            "User-Agent": _who(),
            "Accept-Encoding": "identity",
        },
    )


def bearer(token: str) -> dict[str, str]:
    """The header that shows `token`, if there is one. The client takes it off when it is led elsewhere."""
    return {"Authorization": f"Bearer {token}"} if token else {}


@cache
def _who() -> str:
    """Us; the version is looked up on disk."""
    return f"LocalAI-worker/{metadata.version('localai-worker')} ({sys.platform})"


@cache
def _trusted() -> "ssl.SSLContext":
    """The system's certificates: reading them takes longer than a small file."""
    import httpx

    return httpx.create_ssl_context()


class web_errors:  # noqa: N801 - a context manager that reads as a function
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


def require_success(response: Any, shown: str) -> None:
    status = response.status_code
    if response.is_success:
        return
    problem = f"failed to download url {go_quote(shown)}, invalid status code {status}"
    if status in _GONE:
        raise ArtifactMissing(shown, problem)
    if response.is_client_error and status not in _TOO_MANY:
        raise DownloadRefused(shown, problem)
    raise ArtifactUnavailable(shown, problem)
