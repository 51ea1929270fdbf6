"""Which proxy a request goes through, by the variables everybody knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Self
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Proxies:
    """`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` (lower-case forms first).

    This machine itself is never asked for through a proxy.
    """

    by_scheme: Mapping[str, str]
    exceptions: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        def read(name: str) -> str:
            return environment.get(name) or environment.get(name.upper()) or ""

        every = read("all_proxy")
        by_scheme = {scheme: read(f"{scheme}_proxy") or every for scheme in ("http", "https")}
        return cls({scheme: proxy for scheme, proxy in by_scheme.items() if proxy}, read("no_proxy"))

    def of(self, url: str) -> str:
        """The proxy's URL for a request to `url`, "" for none."""
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        if host in {"localhost", "::1"} or host.startswith("127."):
            return ""
        place = f"{host}:{parts.port}" if parts.port else host
        if any(_covers(rule.strip().lower(), host, place) for rule in self.exceptions.split(",")):
            return ""
        proxy = self.by_scheme.get(parts.scheme, "")
        return proxy if "://" in proxy or not proxy else f"http://{proxy}"


def _covers(rule: str, host: str, place: str) -> bool:
    """Whether a part of NO_PROXY means `host`, alone or with its port: `*`, a name, a domain, a network."""
    if not rule:
        return False
    if rule == "*" or rule in {host, place}:
        return True
    try:
        return ip_address(host) in ip_network(rule, strict=False)
    except ValueError:  # one of them is a name
        suffix = "." + rule.lstrip("*").lstrip(".")
        return f".{host}".endswith(suffix) or f".{place}".endswith(suffix)
