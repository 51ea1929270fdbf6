"""Progress events of an install or upgrade, published while it runs."""

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio

from ...domain.errors import BusUnavailable, PayloadTooLarge
from ...domain.install_progress import InstallStep, Percentage, human_bytes
from ...domain.messages.backend_progress import BackendInstallProgress, InstallPhase
from ...domain.messages.subjects import NodeSubjects
from ...domain.ports.bus import MessageBus

log = logging.getLogger(__name__)

_INTERVAL_S = 0.25  # upstream's; a new phase does not wait for it
_DOING = {InstallPhase.DOWNLOADING: "Downloading", InstallPhase.EXTRACTING: "Extracting"}


@dataclass
class ProgressEvents:
    """The events of one operation, sent in order by one task (N-B29).

    The newest stands for those of its phase that were not sent yet. `succeeded` makes the last event the
    one with 100 %; without it the last is whatever was reached.
    """

    publish: Callable[[str, bytes], Awaitable[None]]
    subject: str
    op_id: str
    node_id: str
    backend: str
    _waiting: deque[BackendInstallProgress] = field(default_factory=deque)
    _news: anyio.Event = field(default_factory=anyio.Event)
    _percentage: Percentage = field(default_factory=Percentage)
    _last: BackendInstallProgress | None = None
    _ended: bool = False

    def listen(self, step: InstallStep) -> None:
        """Take note of `step`; never waits."""
        known = step.total_bytes > 0
        self._add(
            BackendInstallProgress(
                op_id=self.op_id,
                node_id=self.node_id,
                backend=self.backend,
                file_name=f"{_DOING[step.phase]} {step.source}" if step.phase in _DOING else step.source,
                current=human_bytes(step.done_bytes) if known else "",
                total=human_bytes(step.total_bytes) if known else "",
                percentage=self._percentage.after(step),
                phase=step.phase.value,
            )
        )

    def succeeded(self) -> None:
        """The operation is done."""
        phase = self._last.phase if self._last else InstallPhase.STARTING.value
        self._waiting.append(
            BackendInstallProgress(
                op_id=self.op_id, node_id=self.node_id, backend=self.backend, percentage=100.0, phase=phase
            )
        )

    def _add(self, event: BackendInstallProgress) -> None:
        if self._last is not None and self._last.phase == event.phase and self._waiting:
            self._waiting[-1] = event
        else:
            self._waiting.append(event)
        self._last = event
        self._news.set()

    async def run(self) -> None:
        """Send events until `end`: one in 250 ms, but a new phase at once."""
        while await self._any_waiting():
            event = self._waiting.popleft()
            await self._send(event)
            with anyio.move_on_after(_INTERVAL_S):
                await self._until(partial(self._new_phase, event.phase))

    async def _any_waiting(self) -> bool:
        await self._until(lambda: bool(self._waiting) or self._ended)
        return bool(self._waiting)

    def _new_phase(self, phase: str) -> bool:
        return self._ended or any(event.phase != phase for event in self._waiting)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._news = anyio.Event()
            await self._news.wait()

    def end(self) -> None:
        """Let `run` send what is left and return."""
        self._ended = True
        self._news.set()

    async def _send(self, event: BackendInstallProgress) -> None:
        try:
            await self.publish(self.subject, event.to_wire())
        except (BusUnavailable, PayloadTooLarge) as error:
            log.warning("progress event lost: subject=%s error=%s", self.subject, error)


@asynccontextmanager
async def progress_events(
    bus: MessageBus, subjects: NodeSubjects, *, op_id: str, backend: str
) -> AsyncIterator[ProgressEvents]:
    """Events of the operation `op_id` while the block runs; all are sent when it ends, also badly."""
    events = ProgressEvents(bus.publish, subjects.install_progress(op_id), op_id, subjects.node_id, backend)
    failure: Exception | None = None
    async with anyio.create_task_group() as sending:
        sending.start_soon(events.run)
        try:
            yield events
        except Exception as error:  # noqa: BLE001 - raised below: here it would cancel the last events
            failure = error
        events.end()
    if failure is not None:
        raise failure
