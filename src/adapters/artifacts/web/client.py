"""HTTP as bulk transfers need it: blocking, for threads that can be cut; nothing is retried here."""

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import unquote, urljoin, urlsplit

import certifi
import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, ReadTimeoutError

from .flight import Flight
from .proxies import Proxies

USER_AGENT = "localai-worker"
_REDIRECTS = 10
_REDIRECT_STATUS = frozenset({301, 302, 303, 307, 308})


class WebFailure(Exception):
    """A request or its answer broke off; doing it again may help. The text is for people."""

    def __init__(self, reason: str, *, retry_after_s: float = 0.0, is_untrusted: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s  # how long the server wants to be left alone
        self.is_untrusted = is_untrusted  # its certificate was refused


@dataclass
class Answer:
    """The head of an answer; its body is read once, front to back."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    url: str  # where it came from, after redirects
    _response: urllib3.BaseHTTPResponse = field(repr=False)
    _stall_s: float = 60.0

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes as they come in, b"" at the end.

        Raises:
            WebFailure: the connection broke, or nothing came for the time a connection may stall.
        """
        try:
            # What one receive brings, not `size` bytes: a trickle must not hide in here for hours.
            return self._response.read1(size, decode_content=False)
        except ReadTimeoutError as error:
            raise WebFailure(f"no byte came for {self._stall_s:g} s") from error
        except (HTTPError, OSError) as error:
            cause = _cause_of(error)
            if isinstance(cause, IncompleteRead):
                raise WebFailure(f"the connection ended {cause.expected} bytes too early") from error
            raise WebFailure(f"the connection broke: {plain(error)}") from error

    def read_all(self, limit_bytes: int) -> bytes:
        """The whole body, at most one byte more than `limit_bytes`."""
        content = b""
        while len(content) <= limit_bytes and (chunk := self.read(limit_bytes + 1 - len(content))):
            content += chunk
        return content

    def drain(self) -> None:
        """Read a short rest, so that the connection can be used again."""
        self.read_all(1 << 16)


@dataclass
class WebClient:
    """Sends requests over pooled connections, through the proxies of `environment`.

    Certificates are checked against Mozilla's roots and those of the system.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    connect_s: float = 10.0
    stall_s: float = 60.0  # as upstream's guard for downloads
    connections: int = 16
    _pools: dict[str, urllib3.PoolManager] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def get(
        self,
        url: str,
        flight: Flight,
        *,
        headers: Mapping[str, str] | None = None,
        authorization: str = "",
        method: str = "GET",
        body: bytes | None = None,
    ) -> Iterator[Answer]:
        """The answer to one request, redirects followed; outside the block its connection is given back.

        `authorization` goes to the origin of `url` only, never to where a redirect leads.

        Raises:
            WebFailure: no answer came.
            FetchCut: the flight is over.
        """
        target = url
        for _ in range(_REDIRECTS + 1):
            flight.check()
            sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
            if authorization and _origin(target) == _origin(url):
                sent["Authorization"] = authorization
            response = self._send(method, target, sent, body)
            try:
                with flight.track(response):
                    location = response.headers.get("Location")
                    if response.status not in _REDIRECT_STATUS or not location:
                        headers_seen = {name.lower(): value for name, value in response.headers.items()}
                        yield Answer(response.status, headers_seen, target, response, self.stall_s)
                        return
            finally:
                _give_back(response)
            target = urljoin(target, location)
            if urlsplit(target).scheme not in {"http", "https"}:
                raise WebFailure(f"{shown(url)} leads to {shown(target)}, which is neither http nor https")
        raise WebFailure(f"{shown(url)} leads on more than {_REDIRECTS} times")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool(url).urlopen(
                method,
                url,
                body=body,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=self.connect_s, read=self.stall_s),
            )
        except (HTTPError, OSError, ValueError) as error:
            is_untrusted = isinstance(_cause_of(error), ssl.SSLCertVerificationError)
            raise WebFailure(f"{shown(url)}: {plain(error)}", is_untrusted=is_untrusted) from error

    def _pool(self, url: str) -> urllib3.PoolManager:
        proxy = Proxies.from_environment(self.environment).of(url)
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = self._make_pool(proxy)
            return self._pools[proxy]

    def _make_pool(self, proxy: str) -> urllib3.PoolManager:
        tls = _tls_context()
        if not proxy:
            return urllib3.PoolManager(maxsize=self.connections, ssl_context=tls)
        userinfo = urlsplit(proxy).netloc.rpartition("@")[0]
        login = urllib3.make_headers(proxy_basic_auth=unquote(userinfo)) if userinfo else None
        return urllib3.ProxyManager(proxy, proxy_headers=login, maxsize=self.connections, ssl_context=tls)

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()


def shown(url: str) -> str:
    """`url` without what may be secret in it: userinfo, query, fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def plain(error: BaseException) -> str:
    """What happened, without the names of objects that urllib3 puts in front."""
    error = _cause_of(error)
    text = getattr(error, "strerror", None) or str(error)
    return str(text).rpartition(">: ")[2] or type(error).__name__


def _cause_of(error: BaseException) -> BaseException:
    """What urllib3 wrapped, if it wrapped something."""
    inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
    if isinstance(error, HTTPError) and isinstance(inner, Exception):
        return _cause_of(inner)
    return error


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


def _give_back(response: urllib3.BaseHTTPResponse) -> None:
    """To the pool if all was read, else closed: the rest may be gigabytes."""
    if not response.closed:
        response.close()
    response.release_conn()


@cache
def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
