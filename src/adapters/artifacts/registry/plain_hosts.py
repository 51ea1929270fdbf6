"""Registries that may speak plain http.

Source: go-containerregistry pkg/name, Registry.Scheme.
"""

import ipaddress
from urllib.parse import urlsplit

_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))  # RFC 1918


def may_be_plain(host: str) -> bool:
    """Whether a registry may be asked without TLS: this machine, and private IPv4 addresses."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return ":" in host
    if name.endswith((".localhost", ".local")):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in _PRIVATE)
