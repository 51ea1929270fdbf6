"""Why a backend is not running; the texts keep LocalAI's wording, as people search for it."""

from dataclasses import dataclass

from .backend import ReplicaKey
from .deaths import Death
from .durations import spoken
from .errors import SpawnFailed, WorkerError


@dataclass(eq=False)
class BackendNotStarted(WorkerError):
    """The program could not be started at all."""

    key: ReplicaKey
    cause: SpawnFailed

    def __str__(self) -> str:
        return f"starting backend process: {self.cause}"


@dataclass(eq=False)
class BackendDied(WorkerError):
    """The process ended before it was ready."""

    death: Death

    def __str__(self) -> str:
        shown = self.death.stderr or "(nothing)"
        return (
            f"backend process {self.death.key} died during startup. Last stderr:\n{shown}\n"
            f"({self.death.verdict})"
        )


@dataclass(eq=False)
class BackendNotReady(WorkerError):
    """The process lives but did not answer Health in time; it was ended.

    `quiet_s` is how long it had shown no sign of work by then, 0 where it never did or still does.
    """

    key: ReplicaKey
    waited_s: float
    quiet_s: float
    last: str
    stderr: str

    def __str__(self) -> str:
        patience = f", the last {spoken(self.quiet_s)} without a sign of work" if self.quiet_s else ""
        return (
            f"backend {self.key} did not become ready within {_rounded(self.waited_s)}s{patience}. "
            f"Last stderr:\n{self.stderr or '(nothing)'}\n"
            f"({self.last}; LOCALAI_BACKEND_READY_TIMEOUT gives it longer)"
        )


def _rounded(seconds: float) -> str:
    return f"{round(seconds, 1):g}" if seconds < 10 else str(round(seconds))


@dataclass(eq=False)
class StoppedDuringStartup(WorkerError):
    """A stop came while the process was starting."""

    key: ReplicaKey

    def __str__(self) -> str:
        return f"backend {self.key} was stopped during startup"


@dataclass(eq=False)
class SupervisorClosed(WorkerError):
    """The worker is shutting down and starts nothing new."""

    key: ReplicaKey

    def __str__(self) -> str:
        return f"backend {self.key} is not started: this worker is shutting down; ask another node"


@dataclass(eq=False)
class GroupSurvived(WorkerError):
    """A process group outlived KILL: the kernel holds it, as a hung device driver can."""

    key: ReplicaKey
    pid: int
    waited_s: float

    def __str__(self) -> str:
        return (
            f"stopping backend process {self.key}: process group {self.pid} still runs {self.waited_s:g} s "
            "after SIGKILL; its port stays reserved. Look at its state with ps (D: the kernel holds it)"
        )
