"""The ports of a machine in memory."""

from collections.abc import Collection, Container
from dataclasses import dataclass, field

from anyio.lowlevel import checkpoint

from .machine import InMemoryMachine


@dataclass
class InMemoryNetwork:
    """A `Network` on `machine`, and `HostNames`: the addresses in `names`.

    `reserved` are the ports its system keeps to itself.
    """

    machine: InMemoryMachine
    reserved: Container[int] = range(1, 1024)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def can_listen(self, port: int) -> bool:
        return 0 < port < 65536 and port not in self.reserved and self.machine.listener(port) is None

    async def connections(self, ports: Collection[int]) -> int | None:
        await checkpoint()
        connections = self.machine.connections
        return None if connections is None else sum(connections.get(port, 0) for port in set(ports))

    async def resolve(self, host: str) -> tuple[str, ...]:
        await checkpoint()
        return self.names.get(host, ())
