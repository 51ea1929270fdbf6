"""`localai-worker demo`: the story once, and nothing left behind whatever happens."""

import logging
import shutil
import signal
import tempfile
from pathlib import Path

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus
from rich.console import Console
from rich.markup import escape

from ...domain.errors import WorkerError
from ..startup import leaves
from .leftovers import end_processes_of
from .report import StepReport
from .story import DemoFailed, tell

_EXAMPLE = Path("examples/backends/minilm")


def run_demo(bus: str, keep: bool, timeout_s: float, storage: str = "http") -> int:
    """Play the demo on `bus` (`nats`: real parts, `memory`: one process) and return the exit code.

    `storage`: how model files travel, `http`, or `s3` with real parts: then a changed object follows.

    0 after `demo: ok`, 1 after a failure (told on stderr), 130 after Ctrl-C. `keep` leaves the temporary
    directory of the real parts for a look; their processes are ended all the same.
    """
    console = Console(highlight=False)
    report = StepReport(console)
    console.print(f"localai-worker demo, message bus: {bus}" + (", files by S3" if storage == "s3" else ""))
    failures: list[BaseException] = []
    interrupted = False
    try:
        interrupted = anyio.run(_play, bus, storage, keep, timeout_s, report)
    except* WorkerError as group:
        failures.extend(leaves(group))
    if failures:
        errors = Console(stderr=True, highlight=False)
        where = f" at '{report.current}'" if report.current else ""
        for failure in failures:
            errors.print(escape(f"demo: failed{where}: {failure}"), soft_wrap=True)
        return 1
    if interrupted:
        console.print("demo: interrupted, everything is cleaned up")
        return 130
    report.done()
    return 0


async def _play(bus: str, storage: str, keep: bool, timeout_s: float, report: StepReport) -> bool:
    """Tell the story; True if a signal cut it short. Further signals do not disturb the cleaning up."""
    interrupted = False
    playing = anyio.CancelScope()

    async def obey_signals(*, task_status: TaskStatus[None]) -> None:
        nonlocal interrupted
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                interrupted = True
                playing.cancel()

    async with anyio.create_task_group() as tasks:
        await tasks.start(obey_signals)
        with playing, anyio.move_on_after(timeout_s) as limit:
            await (_play_in_memory(report) if bus == "memory" else _play_for_real(keep, report, storage))
        if limit.cancelled_caught:
            raise DemoFailed(f"it took longer than {timeout_s:g} s; --timeout gives it more")
        tasks.cancel_scope.cancel()
    return interrupted


async def _play_in_memory(report: StepReport) -> None:
    from .memory_stage import memory_stage

    # The worker's warnings would stand between the steps; as a process of its own it has a log for them.
    logging.getLogger(__name__.partition(".")[0]).setLevel(logging.ERROR)
    async with memory_stage() as stage:
        await tell(stage, report)


async def _play_for_real(keep: bool, report: StepReport, storage: str) -> None:
    from .real_stage import real_stage

    example = find_example()
    directory = Path(tempfile.mkdtemp(prefix="localai-worker-demo-")).resolve()
    try:
        async with real_stage(directory, example, storage) as stage:
            await tell(stage, report)
    finally:
        with anyio.CancelScope(shield=True):
            # A worker that was killed could not end its backends.
            await to_thread.run_sync(end_processes_of, directory)
            if keep:
                report.console.print(f"kept: {directory}")
            else:
                await to_thread.run_sync(shutil.rmtree, directory)


def find_example() -> Path:
    """The example backend's directory: of this package's checkout, or below the working directory.

    Raises:
        DemoFailed: it is in neither; an installed package does not bring it.
    """
    checkout = Path(__file__).resolve().parents[3]
    for base in (checkout, Path.cwd()):
        if (base / _EXAMPLE / "run.sh").is_file():
            return base / _EXAMPLE
    raise DemoFailed(
        f"{_EXAMPLE} not found; run it from a checkout of localai-worker (make demo), or try --bus memory"
    )
