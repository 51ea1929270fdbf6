"""What a simulated frontend's commands fail with, besides what its ports raise."""

from dataclasses import dataclass

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
