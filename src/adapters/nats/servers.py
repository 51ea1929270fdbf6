"""Server lists as operators write them in LOCALAI_NATS_URL."""

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from ...domain.errors import BusUnavailable

DEFAULT_SERVER = "nats://127.0.0.1:4222"  # what nats.go takes for an empty address
_DEFAULT_PORTS = {"nats": 4222, "tls": 4222, "ws": 80, "wss": 443}  # nats.go's
_HOST_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class Server:
    """One server and what to log in with: user and password, or a token, or nothing (all decoded)."""

    scheme: str  # nats, tls, ws or wss
    host: str
    port: int
    path: str = ""
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The address without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def wants_tls(self) -> bool:
        return self.scheme in {"tls", "wss"}

    @property
    def has_login(self) -> bool:
        """The address itself says who logs in."""
        return self.user is not None or self.token is not None

    def __str__(self) -> str:
        """The address as it may be logged: that there are credentials shows, what they are does not."""
        return self.url.replace("://", "://***@", 1) if self.has_login else self.url


def parse_servers(text: str) -> tuple[Server, ...]:
    """Read a comma list of servers, as nats.go does.

    A scheme (`nats`, `tls`, `ws`, `wss`) and a port may be missing, blanks and empty items are skipped,
    credentials stand as `user:password@` or `token@`, percent-encoded where needed.

    Raises:
        BusUnavailable: an item is no server address; its text is masked.
    """
    servers = tuple(_parse_server(item, text) for part in text.split(",") if (item := part.strip()))
    servers = servers or (_parse_server(DEFAULT_SERVER, text),)
    if len({server.scheme in {"ws", "wss"} for server in servers}) > 1:
        raise BusUnavailable(mask(text), "WebSocket and plain servers cannot be mixed")
    return servers


def mask(text: str) -> str:
    """`text` without whatever may be credentials, for a list too broken to be parsed."""
    before, at, after = text.rpartition("@")
    if not at:
        return text
    scheme, separator, _ = before.partition("://")
    return f"{scheme}{separator}***@{after}" if separator else f"***@{after}"


def _parse_server(item: str, text: str) -> Server:
    try:
        parts = urlsplit(item if "://" in item else f"nats://{item}")
    except ValueError:  # a bracket without its partner; the message quotes the text, so it is not repeated
        raise BusUnavailable(mask(text), "the server list is malformed") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise BusUnavailable(mask(text), f'unknown scheme "{parts.scheme}"; use nats, tls, ws or wss')
    user, password = _decoded(parts.username), _decoded(parts.password)
    return Server(
        scheme=parts.scheme,
        host=_host(parts, text),
        port=_port(parts, text),
        path=parts.path if parts.scheme in {"ws", "wss"} else "",
        user=user if password is not None else None,
        password=password,
        token=user if password is None else None,
    )


def _decoded(part: str | None) -> str | None:
    return None if part is None else unquote(part)


def _host(parts: SplitResult, text: str) -> str:
    host = parts.hostname or ""
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise BusUnavailable(mask(text), "a server's IPv6 address is malformed") from None
    elif not _HOST_NAME.fullmatch(host):
        raise BusUnavailable(mask(text), "a server has no host name or a malformed one")
    return host


def _port(parts: SplitResult, text: str) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port is None:
        return _DEFAULT_PORTS[parts.scheme]
    if port == 0:
        raise BusUnavailable(mask(text), "a server's port is no number between 1 and 65535")
    return port
