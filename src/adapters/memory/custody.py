"""The state directory and the keeper of a machine in memory."""

from dataclasses import dataclass
from pathlib import Path

from anyio.lowlevel import checkpoint

from ...domain.ports.state_lock import StateInUse, Tenure
from .machine import InMemoryMachine, owner_of


@dataclass(eq=False)
class InMemoryStateLock:
    """A `StateLock` on `machine`; `machine.worker_died(directory)` plays a kill of the worker."""

    machine: InMemoryMachine
    directory: Path
    _taken: int = 0

    async def take(self) -> Tenure:
        await checkpoint()
        if self.directory in self.machine.workers:
            raise StateInUse(self.directory)
        first = self.directory not in self.machine.taken
        self._taken = self.machine.worker_came(self.directory)
        return Tenure(owner_of(self.directory), f"{self._taken}", first)

    async def release(self) -> None:
        await checkpoint()
        if self._taken and self.machine.workers.get(self.directory) == self._taken:
            self.machine.worker_died(self.directory)
        self._taken = 0


@dataclass
class InMemoryKeeper:
    """A `Keeper` without a task: the machine ends what nobody came back for when its time has come."""

    machine: InMemoryMachine
    directory: Path
    window_s: float

    async def post(self) -> None:
        await checkpoint()
        self.machine.keepers[self.directory] = self.window_s

    async def dismiss(self) -> None:
        await checkpoint()
        self.machine.keepers.pop(self.directory, None)
