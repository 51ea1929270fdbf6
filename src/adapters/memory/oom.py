"""The kernel's count of a machine in memory."""

from dataclasses import dataclass

from .machine import InMemoryMachine


@dataclass(frozen=True)
class InMemoryOomKills:
    """`OomKills` of `machine`."""

    machine: InMemoryMachine

    def count(self) -> int | None:
        return self.machine.oom_kills
