"""Who listens on a TCP port: first a connection attempt, which costs next to nothing while nobody does,
then the socket tables of /proc.
"""

import asyncio
import os
import socket
from pathlib import Path

from anyio import to_thread

from ...domain.ports.processes import Listening
from .proc_table import PROC, all_processes, readable

_CONNECT_LIMIT_S = 0.5
_LISTEN = "0A"  # TCP_LISTEN in the `st` column of /proc/net/tcp


async def who_listens(port: int, leader: int) -> Listening:
    """Who listens on `port`, as seen from the process `leader` and everything it started.

    Where several sockets share the port (SO_REUSEPORT) all of them must belong to the leader's tree.
    """
    if not await _accepts(port):
        return Listening.NOBODY
    if not readable():
        return Listening.UNKNOWN
    return await to_thread.run_sync(_owner, port, leader)


async def _accepts(port: int) -> bool:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT_LIMIT_S):
                await loop.sock_connect(probe, ("127.0.0.1", port))
        except TimeoutError:
            return True  # the accept queue is full: somebody listens
        except OSError:
            return False
    return True


def _owner(port: int, leader: int) -> Listening:
    sockets = _listening_inodes(port)
    if not sockets:
        return Listening.NOBODY  # it went away between the connection and the table
    unseen = sockets - _sockets_of(leader)
    if not unseen:
        return Listening.OWN  # by far the most common: run.sh has exec'ed the server
    hidden = False
    for pid in _tree_of(leader):
        try:
            unseen -= _socket_inodes(pid)
        except PermissionError:
            hidden = True
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
    if not unseen:
        return Listening.OWN
    return Listening.UNKNOWN if hidden else Listening.FOREIGN


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for line in lines:
            columns = line.split()
            if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                found.add(columns[9])
    return found


def _sockets_of(pid: int) -> set[str]:
    try:
        return _socket_inodes(pid)
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return set()


def _socket_inodes(pid: int) -> set[str]:
    inodes = set()
    with os.scandir(PROC / str(pid) / "fd") as descriptors:
        for descriptor in descriptors:
            try:
                target = str(Path(descriptor.path).readlink())
            except FileNotFoundError:
                continue  # closed while we looked
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
    return inodes


def _tree_of(leader: int) -> set[int]:
    """The session that `leader` leads, and all descendants, those that left the session too."""
    parents: dict[int, int] = {}
    tree = {leader}
    for process in all_processes():
        parents[process.pid] = process.parent
        if process.session == leader:
            tree.add(process.pid)
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in tree}
        grown = not children <= tree
        tree |= children
    return tree
