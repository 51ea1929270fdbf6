"""The TCP ports of this machine, by trying to bind them and by the kernel's tables."""

import errno
import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from anyio import getaddrinfo, move_on_after, to_thread

from .socket_tables import established

_RESOLVE_S = 10.0  # as the port promises
# Somebody has the port, or the system keeps it.
_REFUSED = {errno.EADDRINUSE, errno.EACCES, errno.EPERM}
# The system has no such addresses: then nobody can listen on them, and nobody has to.
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


@dataclass(frozen=True)
class LocalNetwork:
    """A `Network` and `HostNames` that asks the system.

    It binds the wildcard addresses of IPv4 and IPv6 in turn, as a server would. SO_REUSEADDR, which
    servers set: without it a port looks taken for the minute that connections of its last owner rest in
    TIME_WAIT. On Linux it never lets us beside a socket that listens.
    No SO_REUSEPORT: with it we could share the port of any listener that has it, as gRPC servers do.
    `socket_tables` is the directory of the kernel's tables.
    """

    socket_tables: Path = Path("/proc/net")

    def can_listen(self, port: int) -> bool:
        if not 0 < port < 65536:
            return False
        return _can_bind(socket.AF_INET, "0.0.0.0", port) and _can_bind(socket.AF_INET6, "::", port)

    async def connections(self, ports: Collection[int]) -> int | None:
        # In a thread: a busy machine has a hundred thousand lines.
        return await to_thread.run_sync(established, self.socket_tables, frozenset(ports))

    async def resolve(self, host: str) -> tuple[str, ...]:
        with move_on_after(_RESOLVE_S):
            try:
                found = await getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                return ()
            return tuple(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))
        return ()


def _can_bind(family: socket.AddressFamily, address: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # Only IPv6: a socket for both would fail, and tell nothing, where IPv4 is switched off.
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((address, port))
    except OSError as error:
        if error.errno in _REFUSED:
            return False
        if error.errno not in _NO_SUCH_FAMILY:  # out of file descriptors, say: that is not about the port
            raise
    return True
