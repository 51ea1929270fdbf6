"""Progress of an install on a terminal, or as lines where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ...domain.install_progress import InstallStep, Listen, human_bytes


@contextmanager
def shown(console: Console) -> Iterator[Listen]:
    """Shows each step that is told while the block runs."""
    if not console.is_terminal:
        yield _Lines(console).listen
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress, progress.add_task("", total=None)).listen


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def listen(self, step: InstallStep) -> None:
        total = step.total_bytes or None
        self._progress.update(
            self._task, description=step.phase.value, completed=step.done_bytes, total=total
        )


class _Lines:
    """A line for each phase, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console, self._told = console, ""

    def listen(self, step: InstallStep) -> None:
        line = f"{step.phase.value} {step.source}"
        if line == self._told:
            return
        if step.phase.value == "downloading" and not step.total_bytes:
            return  # the size comes with the next step
        self._told = line
        size = f" ({human_bytes(step.total_bytes)})" if step.total_bytes else ""
        self._console.print(f"{line}{size}", markup=False, highlight=False, soft_wrap=True)
