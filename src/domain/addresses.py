"""The node's addresses: where backends and the file server listen, and what the frontend is told to dial."""

import re
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Self

from .errors import WorkerError

# Sources of the rules here: LocalAI core/cli/worker.go, core/services/worker/config.go.
DEFAULT_BASE_PORT = 50051
MAX_PORT = 65535

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_NO_HOST = re.compile(r"[\s/@\[\]]")


@dataclass(eq=False)
class WrongAddress(WorkerError):
    """A text that is not the address it should be; `right` completes "must be ..."."""

    text: str
    right: str

    def __str__(self) -> str:
        return f'"{self.text}" must be {self.right}'


@dataclass(frozen=True, slots=True)
class AddressWarning:
    """An address setting that could not be taken as it was written, and what follows.

    `setting`: the name of the argument of `derive_addresses`; `effect` completes its name.
    """

    setting: str
    effect: str


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host (IPv6 without brackets) and a port, 0-65535; as text `host:port`, IPv6 in brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address `host:port`, `[IPv6]:port` or `:port` (host "").

        Raises:
            WrongAddress: there is no port, or no host that could be one.
        """
        host, port = split_host_port(text)
        if port is None or (not host and not text.strip().startswith(":")):
            raise WrongAddress(text, "host:port, like 0.0.0.0:50050 or [::]:50050")
        return cls(host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NodeAddresses:
    """Where this node listens and what it tells the frontend.

    `base_port`: the first backend's gRPC port. `grpc`: the node address the frontend is told.
    `http_bind`: where the file server listens (port 0: any free one, see `bound`).
    `http`: the file server's address the frontend is told.
    """

    base_port: int
    grpc: HostPort
    http_bind: HostPort
    http: HostPort
    warnings: tuple[AddressWarning, ...] = ()

    def advertised(self, port: int) -> str:
        """The address the frontend dials for the backend that listens on `port`."""
        return str(HostPort(self.grpc.host, port))

    def means(self, text: str, port: int) -> bool:
        """Whether `text`, an address a frontend knows, is that of the backend that listens on `port`.

        The port decides; the host may be the advertised one, a loopback one or missing. Upstream compares
        with a loopback address and so finds no node's own rows (N-B1).
        """
        host, named_port = split_host_port(text)
        return named_port == port and (not host or _is_loopback(host) or _same_host(host, self.grpc.host))

    def bound(self, http_port: int) -> Self:
        """These addresses once the file server listens on `http_port`: no advertised port stays 0 (H-25)."""
        return replace(
            self,
            http_bind=HostPort(self.http_bind.host, self.http_bind.port or http_port),
            http=HostPort(self.http.host, self.http.port or http_port),
        )


def split_host_port(text: str) -> tuple[str, int | None]:
    """Host and port of an address people typed; ``""`` where no host can be told, None where no port.

    Takes `host`, `host:port`, `:port`, `[IPv6]`, `[IPv6]:port`, bare IPv6, and a URL for its address.
    A bare number is neither: both a port and a host name could be meant.
    """
    address = text.strip().partition("://")[2] or text.strip()
    address = address.partition("/")[0]
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        colon, port_text = rest[:1], rest[1:]
    elif address.count(":") > 1:
        host, colon, port_text = address, "", ""
        if not _is_ip(host):
            return "", None
    else:
        host, colon, port_text = address.partition(":")
        if not colon and _PORT.fullmatch(host):
            return "", None
    port = int(port_text) if colon == ":" and _PORT.fullmatch(port_text) else None
    usable_host = "" if _NO_HOST.search(host) else host
    return usable_host, port if port is None or port <= MAX_PORT else None


def derive_addresses(
    addr: str, serve_addr: str, advertise_addr: str, http_addr: str, advertise_http_addr: str, hostname: str
) -> NodeAddresses:
    """The node's addresses from its settings (``""``: not set) and the machine's name.

    An advertised address is one the frontend can dial: a missing or wildcard host becomes `hostname`, a
    missing port the one listened on (N-B18). Without `advertise_http_addr` the port of an explicit
    `http_addr` is advertised, not one below the base port (H-25).

    Raises:
        WrongAddress: `http_addr` is no address to listen on.
    """
    warnings: list[AddressWarning] = []
    base_port = _base_port({"addr": addr, "serve_addr": serve_addr}, warnings)

    machine = HostPort(hostname or "localhost", base_port)
    setting, text = ("advertise_addr", advertise_addr) if advertise_addr.strip() else ("addr", addr)
    grpc = _routable(setting, text, machine, warnings)
    if not hostname and grpc.host == machine.host:
        effect = "leaves localhost as this node's address, because the machine has no name"
        warnings.append(AddressWarning("advertise_addr", effect))

    # A machine that is known by an IPv6 address must answer there; `::` takes IPv4 too (N-B19).
    everywhere = "::" if ":" in grpc.host else "0.0.0.0"
    if http_addr.strip():
        asked = HostPort.parse(http_addr)
        http_bind = HostPort(asked.host or everywhere, asked.port)
    else:
        http_bind = HostPort(everywhere, base_port - 1)
    http = _routable(
        "advertise_http_addr", advertise_http_addr, HostPort(grpc.host, http_bind.port), warnings
    )
    return NodeAddresses(base_port, grpc, http_bind, http, tuple(warnings))


def effective_max_port(configured: int, base_port: int) -> tuple[int, str]:
    """The highest port backends may get, and what was wrong with `configured` (``""``: nothing).

    0 and less mean no bound, as does a bound below the base port.
    """
    if configured <= 0:
        return MAX_PORT, ""
    if configured > MAX_PORT:
        return MAX_PORT, f"is no port; the highest port {MAX_PORT} is used"
    if configured < base_port:
        return MAX_PORT, f"is below the base port {base_port} and ignored; ports go up to {MAX_PORT}"
    return configured, ""


def _base_port(sources: dict[str, str], warnings: list[AddressWarning]) -> int:
    for setting, text in sources.items():
        if text.strip():
            port = split_host_port(text)[1]
            if port:
                return port
            effect = f"has no port from 1 to {MAX_PORT}, so it does not say where the gRPC ports begin"
            warnings.append(AddressWarning(setting, effect))
    return DEFAULT_BASE_PORT


def _routable(setting: str, text: str, default: HostPort, warnings: list[AddressWarning]) -> HostPort:
    """The address `text` with what a frontend could not dial taken from `default`."""
    host, port = split_host_port(text)
    address = HostPort(default.host if _is_anywhere(host) else host, port or default.port)
    if text.strip() and (_is_anywhere(host) or not port):
        effect = f"cannot be dialled by the frontend as it is; it is told {address}"
        warnings.append(AddressWarning(setting, effect))
    return address


def _is_anywhere(host: str) -> bool:
    return not host or host == "*" or (_is_ip(host) and ip_address(host).is_unspecified)


def _is_loopback(host: str) -> bool:
    return host.casefold() == "localhost" or (_is_ip(host) and ip_address(host).is_loopback)


def _same_host(one: str, other: str) -> bool:
    if _is_ip(one) and _is_ip(other):
        return ip_address(one) == ip_address(other)
    return one.casefold() == other.casefold()


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
