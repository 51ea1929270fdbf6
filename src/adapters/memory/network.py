"""`Network` of an in-memory machine."""

from dataclasses import dataclass

from .machine import InMemoryMachine


@dataclass(frozen=True)
class InMemoryNetwork:
    """A port can be bound unless a process or a stranger listens on it."""

    machine: InMemoryMachine

    def can_listen(self, port: int) -> bool:
        return self.machine.listener(port) is None
