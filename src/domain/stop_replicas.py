"""Ending a set of processes before something is done to their files, with an account of which are dead."""

from collections.abc import Collection
from dataclasses import dataclass

import anyio

from .backend import ReplicaKey
from .errors import WorkerError
from .supervise import Supervisor


@dataclass(eq=False)
class ReplicaNotStopped(WorkerError):
    """A process that had to end lives on."""

    key: ReplicaKey
    cause: WorkerError

    def __str__(self) -> str:
        return f"could not stop running process {self.key}: {self.cause}"


@dataclass(frozen=True, slots=True)
class StopOutcome:
    """`stopped`: the processes that are dead, in the order asked; `failure`: of the first that is not."""

    stopped: tuple[ReplicaKey, ...] = ()
    failure: ReplicaNotStopped | None = None


async def stop_replicas(supervisor: Supervisor, keys: Collection[ReplicaKey], *, force: bool) -> StopOutcome:
    """Stop the processes of `keys` side by side; one that is being stopped already is waited for (N-B39)."""
    dead: set[ReplicaKey] = set()
    failures: dict[ReplicaKey, ReplicaNotStopped] = {}

    async def stop(key: ReplicaKey) -> None:
        try:
            if await supervisor.stop(key, force=force) is not None:
                dead.add(key)
        except WorkerError as error:
            failures[key] = ReplicaNotStopped(key, error)

    async with anyio.create_task_group() as stops:
        for key in keys:
            stops.start_soon(stop, key)
    return StopOutcome(
        stopped=tuple(key for key in keys if key in dead),
        failure=next((failures[key] for key in keys if key in failures), None),
    )
