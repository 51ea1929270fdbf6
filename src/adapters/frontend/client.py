"""`FrontendClient` over HTTP, with httpx.

Source: LocalAI core/cli/workerregistry/client.go.
"""

import ssl
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_address
from urllib.parse import quote

import anyio

from ...domain.errors import FrontendRefused, FrontendUnavailable, MalformedMessage, NodeForgotten
from ...domain.messages.node_status import LoadedModel, NodeError, decode_loaded_models
from ...domain.messages.registration import Heartbeat, RegisterReply, RegisterRequest
from ...domain.node import NodeId
from .slim_httpx import httpx

CALL_S = 10.0

_LARGEST_ANSWER_BYTES = 16 * 1024 * 1024  # rows of some ten thousand replicas
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class _Answer:
    url: str  # without user information
    status: int
    body: bytes
    location: str

    def unavailable(self, reason: str) -> FrontendUnavailable:
        return FrontendUnavailable(self.url, reason)


@dataclass
class HttpFrontendClient:
    """Calls the frontend at `base_url` (http or https, a path prefix is kept); `close` ends it.

    The token goes to that host only: a redirect is an error that says where it leads. Proxies come from
    the environment as usual (`HTTP_PROXY`, `NO_PROXY`), except for a frontend on this machine.
    `transport` stands in for the network.

    Raises:
        FrontendUnavailable: `base_url` is no URL of a host.
    """

    base_url: str
    token: str = field(default="", repr=False)
    timeout_s: float = CALL_S
    transport: httpx.AsyncBaseTransport | None = None
    _base: str = field(init=False)
    _client: httpx.AsyncClient = field(init=False, repr=False)

    def __post_init__(self) -> None:
        url = _parsed(self.base_url)
        headers = [(b"User-Agent", b"localai-worker")]
        if self.token:
            headers.append((b"Authorization", b"Bearer " + self.token.encode()))
            # httpx would send user information in place of the token; Go prefers the token.
            url = _without_user(url)
        self._base = str(url).rstrip("/")
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=self.timeout_s,
            transport=self.transport,
            # Without TLS no authorities are needed, and reading them takes 0.2 s: trust none.
            verify=url.scheme == "https" or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            mounts={f"all://{_bracketed(url.host)}": None} if _is_loopback(url.host) else None,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close idle connections; idempotent."""
        await self._client.aclose()

    async def register(self, request: RegisterRequest) -> RegisterReply:
        answer = await self._ask("POST", "register", request.to_wire())
        _accept_success(answer)
        try:
            return RegisterReply.from_wire(answer.body)
        except MalformedMessage as error:
            raise answer.unavailable(f"its answer to a registration is unusable: {error.reason}") from error

    async def heartbeat(self, node_id: NodeId, beat: Heartbeat) -> None:
        answer = await self._ask("POST", f"{_escaped(node_id)}/heartbeat", beat.to_wire())
        if answer.status == HTTPStatus.NOT_FOUND:
            raise NodeForgotten(node_id)
        _accept_success(answer)

    async def drain(self, node_id: NodeId) -> None:
        _accept_ok(await self._ask("POST", f"{_escaped(node_id)}/drain"))

    async def loaded_models(self, node_id: NodeId) -> tuple[LoadedModel, ...]:
        answer = await self._ask("GET", f"{_escaped(node_id)}/models")
        _accept_success(answer)
        try:
            return decode_loaded_models(answer.body)
        except MalformedMessage as error:
            raise answer.unavailable(f"its list of loaded models is unusable: {error.reason}") from error

    async def deregister(self, node_id: NodeId) -> None:
        _accept_ok(await self._ask("POST", f"{_escaped(node_id)}/deregister"))

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> _Answer:
        """One attempt, answered or not within `timeout_s`; Content-Type goes only with a body."""
        url = f"{self._base}/api/node/{path}"
        shown = str(_without_user(httpx.URL(url)))
        headers = {} if body is None else {"Content-Type": "application/json"}
        with anyio.move_on_after(self.timeout_s):
            try:
                async with self._client.stream(method, url, content=body, headers=headers) as response:
                    content = await _read(response, shown)
            except httpx.TimeoutException as error:
                raise FrontendUnavailable(shown, _no_answer(self.timeout_s)) from error
            except httpx.LocalProtocolError:
                # Its text quotes the header, which is the token: neither shown nor chained.
                reason = "the request cannot be sent; is there a line break or a space in the token?"
                raise FrontendUnavailable(shown, reason) from None
            except httpx.HTTPError as error:
                raise FrontendUnavailable(shown, str(error) or type(error).__name__) from error
            return _Answer(shown, response.status_code, content, response.headers.get("Location", ""))
        raise FrontendUnavailable(shown, _no_answer(self.timeout_s))


async def _read(response: httpx.Response, shown: str) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > _LARGEST_ANSWER_BYTES:
            raise FrontendUnavailable(shown, f"its answer exceeds {_LARGEST_ANSWER_BYTES} bytes")
    return bytes(content)


def _accept_ok(answer: _Answer) -> None:
    _accept_success(answer)
    if answer.status != HTTPStatus.OK:
        raise answer.unavailable(f"it answers {answer.status} where only 200 means done")


def _accept_success(answer: _Answer) -> None:
    """Return for a 2xx answer.

    Raises:
        FrontendRefused: for 4xx, with the frontend's words.
        FrontendUnavailable: for anything else.
    """
    if 200 <= answer.status < 300:
        return
    if 400 <= answer.status < 500:
        raise FrontendRefused(answer.url, answer.status, _told(answer))
    if 300 <= answer.status < 400:
        # Following it could carry the token to another host (H-31).
        where = f" to {_shown_location(answer.location)}" if answer.location else ""
        advice = "set LOCALAI_REGISTER_TO to the frontend's own address"
        raise answer.unavailable(f"it redirects ({answer.status}){where}, which is never followed; {advice}")
    raise answer.unavailable(f"it answers {answer.status} {_told(answer)}")


def _told(answer: _Answer) -> str:
    """What the answer says in one line: the error's message, else the start of the body."""
    try:
        text = NodeError.from_wire(answer.body).message
    except MalformedMessage:
        text = answer.body.decode(errors="replace")
    line = " ".join(text.split())
    if line:
        return "".join(char if char.isprintable() else "\ufffd" for char in line[:_SHOWN_CHARACTERS])
    try:
        return HTTPStatus(answer.status).phrase
    except ValueError:
        return "without a word"


def _shown_location(location: str) -> str:
    """Where a redirect leads, without what could be secret in it."""
    try:
        url = httpx.URL(location)
        return ascii(str(_without_user(url).copy_with(query=None, fragment=None)))
    except httpx.InvalidURL:
        return "something that is no URL"


def _no_answer(timeout_s: float) -> str:
    return f"no answer within {timeout_s:g} s"


def _parsed(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url.strip())
    except httpx.InvalidURL as error:
        raise FrontendUnavailable(base_url.rpartition("@")[2], f"that is no URL: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host:
        wanted = "want a URL like http://frontend:8080"
        raise FrontendUnavailable(base_url.rpartition("@")[2], wanted)
    return url


def _without_user(url: httpx.URL) -> httpx.URL:
    return url.copy_with(username=None, password=None)


def _escaped(node_id: NodeId) -> str:
    return quote(node_id, safe="")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
