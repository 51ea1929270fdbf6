"""Blocks of consecutive ports on this machine, each lent to one cluster at a time by whatever process."""

import socket
from dataclasses import dataclass, field

from ...adapters.network.local import LocalNetwork
from .failures import PartFailed

BLOCK = 40  # ports; a worker takes one block: its HTTP port and those of its backends
_PORTS = range(20000, 32000)  # below the range the system gives to clients


@dataclass
class PortBlocks:
    """The blocks of one cluster. A worker that is starting has not bound its ports yet, so looking whether
    they are free is not enough: a block is also locked until `close`.

    The lock is a socket with a name that is no file (Linux): it ends with its process, and leaves nothing.
    """

    _locks: list[socket.socket] = field(default_factory=list)

    def take(self) -> int:
        """The first port of a block that nobody else has and nobody listens in.

        Raises:
            PartFailed: there is none.
        """
        network = LocalNetwork()
        for first in range(_PORTS.start, _PORTS.stop, BLOCK):
            lock = socket.socket(socket.AF_UNIX)
            try:
                lock.bind(f"\0localai-worker-ports-{first}")
            except OSError:
                lock.close()
                continue
            if all(network.can_listen(port) for port in range(first, first + BLOCK)):
                self._locks.append(lock)
                return first
            lock.close()
        raise PartFailed(
            f"no {BLOCK} consecutive free TCP ports between {_PORTS.start} and {_PORTS.stop}", ""
        )

    def close(self) -> None:
        """Give all blocks back."""
        while self._locks:
            self._locks.pop().close()
