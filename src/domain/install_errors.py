"""Why an install failed, in the words that frontends know."""

from dataclasses import dataclass
from pathlib import Path

from .errors import WorkerError
from .messages.error_text import go_quote


@dataclass(eq=False)
class InstallFailed(WorkerError):
    """A backend could not be installed; what was there before is untouched."""

    cause: WorkerError

    def __str__(self) -> str:
        return f"installing backend from gallery: {self.cause}"


@dataclass(eq=False)
class ExternalInstallFailed(WorkerError):
    """An install by uri failed."""

    uri: str
    cause: WorkerError

    def __str__(self) -> str:
        return f"error installing backend {self.uri}: {self.cause}"


@dataclass(eq=False)
class DownloadFailed(WorkerError):
    """No source gave the payload; `cause` is what the first one, `uri`, had to say."""

    uri: str
    cause: WorkerError

    def __str__(self) -> str:
        return f"failed to download backend {go_quote(self.uri)}: {self.cause}"


@dataclass(eq=False)
class RunFileMissing(WorkerError):
    """A payload without a program to start, or with something else in its place."""

    path: Path
    source: str

    def __str__(self) -> str:
        return f"not a valid backend: run file not found {go_quote(str(self.path))} in {self.source}"


@dataclass(eq=False)
class MissingAfterInstall(WorkerError):
    """A backend was installed, but nothing runnable has its name."""

    name: str

    def __str__(self) -> str:
        return f"backend {go_quote(self.name)} not found after install attempt"
