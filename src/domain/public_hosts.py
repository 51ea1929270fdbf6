"""Which web addresses a gallery may send us to."""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from .errors import WorkerError
from .masking import mask_url
from .ports.downloads import HostNames

_PRIVATE_NAMES = frozenset({"localhost", "metadata.google.internal", "instance-data"})
_PRIVATE_SUFFIX = ".local"


@dataclass(eq=False)
class PrivateAddress(WorkerError):
    """A url in a gallery's entry that leads into a private network."""

    url: str
    reason: str

    def __str__(self) -> str:
        return f"{mask_url(self.url)} is refused: {self.reason}; a gallery may only lead to public addresses"


async def require_public(url: str, names: HostNames) -> None:
    """Refuse an `http(s)://` url whose host is not on the public internet; other schemes pass.

    Source: LocalAI pkg/utils/urlfetch.go.

    Raises:
        PrivateAddress: it is private by name, or one of its addresses is, or it has none.
    """
    if not url.startswith(("http://", "https://")):
        return
    try:
        host = (urlsplit(url).hostname or "").rstrip(".").lower()
    except ValueError:
        host = ""
    if not host:
        raise PrivateAddress(url, "it names no host")
    if host in _PRIVATE_NAMES or host.endswith(_PRIVATE_SUFFIX):
        raise PrivateAddress(url, f"{host} is a private name")
    addresses = (host,) if _is_address(host) else await names.resolve(host)
    if not addresses:
        raise PrivateAddress(url, f"{host} has no address")
    for address in addresses:
        if not _is_public(address):
            raise PrivateAddress(url, f"{host} is {address}, a private address")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_public(text: str) -> bool:
    address = ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_global and not (mapped or address).is_multicast
