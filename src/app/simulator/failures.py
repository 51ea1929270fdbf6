"""What a simulated frontend's commands fail with, besides what its ports raise."""

from dataclasses import dataclass
from pathlib import Path

from ...domain.errors import WorkerError


@dataclass(eq=False)
class CommandRefused(WorkerError):
    """The worker answered a command with an error; `error` is its text."""

    subject: str
    error: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.error}"


@dataclass(eq=False)
class NodeNotThere(WorkerError):
    """A node did not come to be in a status; `found` is its status, `""` when it never registered."""

    name: str
    status: str
    found: str
    timeout_s: float

    def __str__(self) -> str:
        found = f"is {self.found}" if self.found else "never registered"
        return f"node {self.name} {found}; waited {self.timeout_s:g} s for {self.status}"


@dataclass(eq=False)
class SimulationError(WorkerError):
    """Something that was played did not go as it must; `reason` says what."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class ServerMissing(WorkerError):
    """A server program the cluster needs is not installed."""

    program: str

    def __str__(self) -> str:
        return f"{self.program} is not installed; install localai-worker[demo], which brings it"


@dataclass(eq=False)
class PartFailed(WorkerError):
    """A process of the cluster ended or did not come up; `log` are its last lines."""

    what: str
    log: str

    def __str__(self) -> str:
        return f"{self.what}; its last words:\n{self.log or '(nothing)'}"


def last_lines(log: Path, count: int = 20) -> str:
    """The last lines of a log file; "" where there is none."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
