"""The kernel's tables of TCP sockets: one text file for IPv4, one for IPv6, a line for each socket."""

from collections.abc import Collection
from pathlib import Path

_TABLES = ("tcp", "tcp6")
_ESTABLISHED = "01"  # TCP_ESTABLISHED in the `st` column


def established(tables: Path, ports: Collection[int]) -> int | None:
    """The established sockets whose local port is one of `ports`; None if no table can be read.

    A connection within this machine has two sockets; only the server's has the local port. Connections
    over IPv4 to a server that listens on both families stand in the table of IPv6.
    """
    found = None
    for name in _TABLES:
        try:
            lines = (tables / name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue  # no IPv6, or no such tables: another system, or a sandbox
        found = (found or 0) + sum(_counts(line.split(), ports) for line in lines)
    return found


def _counts(columns: list[str], ports: Collection[int]) -> bool:
    _number, local, _remote, state, *_ = columns
    return state == _ESTABLISHED and int(local.rpartition(":")[2], 16) in ports
