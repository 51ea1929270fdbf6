"""The state directory, which belongs to one worker at a time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import WorkerError


@dataclass(eq=False)
class StateInUse(WorkerError):
    """Another worker runs on this state directory; `pid` is 0 where it cannot be told."""

    directory: Path
    pid: int = 0

    def __str__(self) -> str:
        who = f"process {self.pid}" if self.pid else "another process"
        return (
            f"state directory {self.directory} belongs to a worker that runs already ({who}); stop that one, "
            "or give this worker a directory of its own with LOCALAI_WORKER_STATE_PATH"
        )


@dataclass(frozen=True, slots=True)
class Tenure:
    """`owner` names the state directory for ever, `run` this taking of it; both are safe in a mark.

    `first`: the name was given just now, so nothing can carry it yet.
    """

    owner: str
    run: str
    first: bool = False


class StateLock(Protocol):
    """Exclusive use of the state directory; it ends with `release`, or with the process however that ends."""

    async def take(self) -> Tenure:
        """Take the directory, which is made if it is missing (0700).

        While the keeper ends what an earlier worker left behind, this waits for it.

        Raises:
            StateInUse: another worker has it.
            FileUnwritable: it cannot be made or locked.
        """

    async def release(self) -> None:
        """Let it go; idempotent."""
