"""The worker's life: the order in which it comes up, and the one path on which it goes down (D10)."""

import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus

from ..domain.bus_login import BusLogin
from ..domain.custody import Custody
from ..domain.enrol import Enrolment
from ..domain.heartbeats import Heartbeats
from ..domain.node import NodeId
from ..domain.ports.bus import MessageBus
from ..domain.ports.frontend import FrontendClient
from ..domain.receive_files import ReceiveFiles
from ..domain.recover import RecoverBackends
from ..domain.resume import ResumeNode
from ..domain.supervise import Supervisor
from ..domain.sweep_files import SweepFiles
from ..domain.sweep_installs import SweepInstalls
from .control_plane import ControlPlane
from .storage import Storage

log = logging.getLogger(__name__)


class FileServer(Protocol):
    """The node's HTTP server."""

    def bind(self) -> int:
        """Take the port, so that a conflict shows before anything else happens; returns it."""

    async def serve(self, *, task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; reports once it accepts connections."""


@dataclass
class Worker:
    """All parts of one worker, already wired.

    `stop_requested` ends it in good order: a signal or the frontend's node stop sets it; the latter sets
    `dismissed` too. `hurry` cuts the wait for requests in flight short: a second signal sets it. With
    `keep_backends` they live on for the next worker, unless the frontend dismissed this one. Times are
    seconds.
    """

    bus: MessageBus
    frontend: FrontendClient
    enrolment: Enrolment
    login: BusLogin
    heartbeats: Heartbeats
    control: ControlPlane
    supervisor: Supervisor
    files: ReceiveFiles
    sweeper: SweepFiles
    leftovers: SweepInstalls
    http: FileServer
    custody: Custody
    recovery: RecoverBackends
    resumption: ResumeNode
    stop_requested: anyio.Event
    prefetch: Callable[[], Coroutine[Any, Any, None]] = anyio.lowlevel.checkpoint
    storage: Storage | None = None
    dismissed: anyio.Event = field(default_factory=anyio.Event)
    hurry: anyio.Event = field(default_factory=anyio.Event)
    keep_backends: bool = False
    http_after_s: float = 1.0
    deregister_s: float = 25.0
    close_s: float = 10.0
    _moving: anyio.Lock = field(default_factory=anyio.Lock)  # from one node id to the next

    async def run(self, *, task_status: TaskStatus[NodeId] = anyio.TASK_STATUS_IGNORED) -> None:
        """Come up, serve until stopped or cancelled, go down; reports the node id once it takes commands.

        Up: state directory, directories and HTTP port, backends of an earlier worker, models to prefetch,
        message bus, registration (or resumption), subscriptions, HTTP, heartbeats. The node registers only
        when it could serve, because a router may pick it at once (H-20).

        Raises:
            WorkerError: why it cannot come up, or what ended it.
        """
        await self.custody.take()
        try:
            await self._live(task_status)
        finally:
            with anyio.CancelScope(shield=True):
                stay = self._backends_stay or bool(self.supervisor.table.entries)  # some may have survived
                await self.custody.give_back(backends_stay=stay)

    async def _live(self, task_status: TaskStatus[NodeId]) -> None:
        await self.files.prepare()
        http_address = str(self.control.addresses.bound(self.http.bind()).http)
        self.enrolment.profile = replace(self.enrolment.profile, http_address=http_address)
        commands_taken = anyio.Event()
        async with anyio.create_task_group() as serving:
            serving.start_soon(self._serve_http, commands_taken)
            serving.start_soon(self.sweeper.sweep_forever)
            serving.start_soon(self.leftovers.sweep)
            async with self._storage_running(), self.supervisor.running():
                try:
                    async with anyio.create_task_group() as life:
                        life.start_soon(_cancel_when_set, self.stop_requested, life.cancel_scope)
                        await self.recovery.run()
                        registered_again = partial(self._registered_again, serving)
                        beat = partial(self.heartbeats.beat_forever, registered_again)
                        resumed = await self.resumption.resume(self.supervisor.replicas) is not None
                        if resumed:  # its models serve already, however long the bus is away
                            life.start_soon(beat)
                            life.start_soon(self.prefetch)
                        else:
                            await self.prefetch()  # upstream's order: what is prefetched is there first
                        node_id = await self._take_commands(serving)
                        commands_taken.set()
                        log.info("worker ready: node=%s address=%s", node_id, self.enrolment.profile.address)
                        task_status.started(node_id)
                        life.start_soon(self.login.keep, registered_again)
                        if not resumed:
                            life.start_soon(beat)
                finally:
                    # Often we are here because of cancellation, which would abort these awaits too; each
                    # step has a bound of its own.
                    with anyio.CancelScope(shield=True):
                        await self._go_down()
            serving.cancel_scope.cancel()

    def _storage_running(self) -> AbstractAsyncContextManager[None]:
        return self.storage.running() if self.storage else nullcontext()

    async def _take_commands(self, serving: TaskGroup) -> NodeId:
        """Come in and serve; the node id, which may have changed while the bus was awaited."""
        async with self._moving:
            await self.login.enter()
            await self.login.adopt()
            node_id = self.enrolment.node_id
            await serving.start(self.control.serve, node_id)
            return node_id

    async def _registered_again(self, serving: TaskGroup, old: NodeId, new: NodeId) -> None:
        """Use what the registration brought; under a new id commands are taken before the old one is left.

        A minted login is for one id only: with it the old id is left first, which nobody uses any more.
        """
        async with self._moving:
            leave = partial(self.control.leave, old) if self.control.serves(old) and new != old else _nothing
            if self.login.by_frontend:
                await leave()
                leave = _nothing
            await self.login.adopt()
            if self.control.serves(new):
                return
            await serving.start(self.control.serve, new)
            await leave()
            log.info("commands are taken as node %s now", new)

    async def _serve_http(self, commands_taken: anyio.Event) -> None:
        """Serve HTTP once commands are taken, or soon anyway while bus or frontend let us wait.

        Loading the server takes as long as all the rest of the start; clients that come before it is
        there wait in the queue of the port, which is ours already.
        """
        with anyio.move_on_after(self.http_after_s):
            await commands_taken.wait()
        await self.http.serve()

    @property
    def _backends_stay(self) -> bool:
        """Whether the next worker finds them: the operator wants it, or this one never got as far as to
        register; then whoever restarts it does so soon, and the keeper waits no longer than for a crash.
        """
        if self.stop_requested.is_set():
            return self.keep_backends and not self.dismissed.is_set()
        return self.keep_backends or self.enrolment.registered is None

    async def _go_down(self) -> None:
        if self._backends_stay:
            log.info("stopping: %d replica(s) stay up for the next worker", len(self.supervisor.replicas))
            self.supervisor.leave_running()
        else:
            await self._leave()
        with anyio.move_on_after(self.close_s):
            await self.control.close()
            await self.bus.close()
            await self.frontend.close()
        log.info("stopped")

    async def _leave(self) -> None:
        log.info("stopping: no new work" if self.enrolment.registered is None else "stopping: draining")
        self.control.refuse_new_work()
        self.supervisor.refuse_new_work()
        async with anyio.create_task_group() as draining:
            draining.start_soon(_cancel_when_set, self.hurry, draining.cancel_scope)
            await self.enrolment.drain()
            draining.cancel_scope.cancel()
        await self.supervisor.stop_all(force=self.hurry.is_set())
        with anyio.move_on_after(self.deregister_s):
            await self.enrolment.deregister()


async def _nothing() -> None:
    """Nothing is left to leave."""


async def _cancel_when_set(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
