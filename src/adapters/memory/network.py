"""The ports of a machine in memory."""

from collections.abc import Container
from dataclasses import dataclass

from .machine import InMemoryMachine


@dataclass
class InMemoryNetwork:
    """A `Network` on `machine`; `reserved` are the ports its system keeps to itself."""

    machine: InMemoryMachine
    reserved: Container[int] = range(1, 1024)

    def can_listen(self, port: int) -> bool:
        return 0 < port < 65536 and port not in self.reserved and self.machine.listener(port) is None
