"""`localai-worker run`: one worker until a signal or the frontend ends it."""

import logging
import signal
from collections.abc import Mapping

import anyio
from anyio.abc import TaskStatus

from ..domain.errors import WorkerError
from .container import Container, build_worker
from .settings import Settings
from .startup import leaves
from .worker import Worker

log = logging.getLogger(__name__)


def run_worker(settings: Settings, environment: Mapping[str, str]) -> int:
    """Run a worker to its end and return the exit code: 0 after a stop, 1 after a failure (logged)."""
    failures: list[BaseException] = []
    try:
        anyio.run(_run_until_stopped, settings, environment)
    except* WorkerError as group:
        failures.extend(leaves(group))
    for failure in failures:
        log.error("%s", failure)
    return 1 if failures else 0


async def _run_until_stopped(settings: Settings, environment: Mapping[str, str]) -> None:
    # Built inside the loop: some parts (events, the gRPC client) belong to it.
    worker = await build_worker(Container(settings=settings, environment=environment))
    async with anyio.create_task_group() as tasks:
        await tasks.start(_obey_signals, worker)
        await worker.run()
        tasks.cancel_scope.cancel()


async def _obey_signals(worker: Worker, *, task_status: TaskStatus[None]) -> None:
    """The first SIGINT or SIGTERM stops in good order, the second stops waiting for requests in flight."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            if worker.stop_requested.is_set():
                log.warning("%s again: stopping without waiting for requests in flight", number.name)
                worker.hurry.set()
            else:
                log.info("%s: stopping (once more to stop without waiting)", number.name)
                worker.stop_requested.set()
