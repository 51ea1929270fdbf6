"""The control plane: each bus subject decoded, handed to a service, and answered exactly once."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskStatus

from ..domain.addresses import NodeAddresses
from ..domain.backend import ReplicaKey
from ..domain.errors import BusUnavailable, MalformedMessage, PayloadTooLarge, WorkerError
from ..domain.galleries import Gallery, parse_galleries
from ..domain.install import InstallBackends
from ..domain.installed import InstalledBackends
from ..domain.messages.backend import BackendInstallReply, BackendInstallRequest, BackendStopRequest
from ..domain.messages.backend_list import BackendListReply, NodeBackendInfo
from ..domain.messages.error_text import cap_error
from ..domain.messages.subjects import NodeSubjects
from ..domain.node import NodeId
from ..domain.ports.bus import BusMessage, MessageBus, Subscription
from ..domain.supervise import Supervisor

log = logging.getLogger(__name__)

_REPLY_OVERHEAD_BYTES = 1024  # what a reply holds besides its error text
_LONGEST_ERROR_BYTES = 64 * 1024  # longer texts help nobody (N-B30)

Handler = Callable[[bytes], Awaitable[bytes | None]]


@dataclass(frozen=True, slots=True)
class Command:
    """One subject: how a payload is handled, and how a failure nobody foresaw is worded as its reply."""

    subject: str
    handle: Handler
    failed: Callable[[str], bytes] | None = None


@dataclass
class ControlPlane:
    """Serves the frontend's commands for one node.

    Messages are handled concurrently; order and exclusion are the services' business (D8).
    `request_stop` is called for the node stop command.
    """

    bus: MessageBus
    installer: InstallBackends
    installed: InstalledBackends
    supervisor: Supervisor
    addresses: NodeAddresses
    galleries: tuple[Gallery, ...]
    request_stop: Callable[[], None]
    _serving: anyio.CancelScope | None = None
    _ended: anyio.Event = field(default_factory=anyio.Event)

    async def serve(self, node_id: NodeId, *, task_status: TaskStatus[None]) -> None:
        """Answer commands until cancelled; reports once every subscription stands.

        Raises:
            SubscriptionDenied, BusUnavailable: the bus does not let us listen.
        """
        try:
            async with anyio.create_task_group() as tasks:
                self._serving = tasks.cancel_scope
                for command in self._commands(NodeSubjects(node_id)):
                    subscription = await self.bus.subscribe(command.subject)
                    tasks.start_soon(self._serve_command, command, subscription)
                task_status.started()
        finally:
            self._ended.set()

    async def close(self) -> None:
        """Stop serving; commands still at work are cancelled and answer that the worker is shutting down."""
        if self._serving is not None:
            self._serving.cancel()
            await self._ended.wait()

    def _commands(self, subjects: NodeSubjects) -> tuple[Command, ...]:
        return (
            Command(subjects.install, self._install, lambda why: BackendInstallReply.failed(why).to_wire()),
            Command(subjects.stop, self._stop),
            Command(subjects.list, self._list, lambda why: BackendListReply.failed(why).to_wire()),
            Command(subjects.node_stop, self._node_stop),
        )

    async def _serve_command(self, command: Command, subscription: Subscription) -> None:
        async with anyio.create_task_group() as tasks:
            async for message in subscription:
                tasks.start_soon(self._answer, command, message)

    async def _answer(self, command: Command, message: BusMessage) -> None:
        """Handle one message; whatever happens, a reply goes out if one is wanted."""
        try:
            reply = await command.handle(message.payload)
        except Exception as error:
            # A bug in a handler must neither end the worker nor leave the frontend to wait its timeout out.
            log.exception("command failed: subject=%s", message.subject)
            why = f"internal error of the worker: {type(error).__name__}: {error}; see its log"
            reply = command.failed(self._capped(why)) if command.failed else None
        except anyio.get_cancelled_exc_class():
            # The worker is going down in the middle of this command: say so rather than fall silent.
            if command.failed:
                with anyio.move_on_after(1, shield=True):
                    await self._reply(message, command.failed("this worker is shutting down"))
            raise
        await self._reply(message, reply)

    async def _reply(self, message: BusMessage, reply: bytes | None) -> None:
        if reply is None or not message.reply_to:
            return
        try:
            await self.bus.publish(message.reply_to, reply)
        except (BusUnavailable, PayloadTooLarge) as error:
            log.error("reply lost: subject=%s error=%s", message.subject, error)

    async def _install(self, payload: bytes) -> bytes:
        try:
            request = BackendInstallRequest.from_wire(payload)
        except MalformedMessage as error:
            return BackendInstallReply.malformed(error).to_wire()
        log.info(
            "install: backend=%s model=%s replica=%d",
            request.backend,
            request.model_id,
            request.replica_index,
        )
        try:
            port = await self._install_and_start(request)
        except WorkerError as error:
            log.warning(
                "install failed: backend=%s model=%s error=%s", request.backend, request.model_id, error
            )
            return BackendInstallReply.failed(self._capped(str(error))).to_wire()
        return BackendInstallReply(success=True, address=self.addresses.advertised(port)).to_wire()

    async def _install_and_start(self, request: BackendInstallRequest) -> int:
        backend = await self.installer.ensure(
            backend=request.backend,
            galleries=self._galleries(request.backend_galleries),
            uri=request.uri,
            name=request.name,
            alias=request.alias,
        )
        key = ReplicaKey(request.model_id or request.backend or backend.name, request.replica_index)
        return await self.supervisor.start(key, backend, await self.installed.identity(backend.name))

    def _galleries(self, text: str) -> tuple[Gallery, ...]:
        """The request's galleries replace ours when there are any; unreadable ones fail the install."""
        return parse_galleries(text) if text else self.galleries

    async def _stop(self, payload: bytes) -> None:
        try:
            request = BackendStopRequest.from_wire(payload)
        except MalformedMessage as error:
            log.warning("backend.stop ignored: %s", error)  # never stop everything for a typo (N-B31)
            return
        if not request.backend:
            log.info("stop all backends: force=%s", request.force)
            await self.supervisor.stop_all(force=request.force)
            return
        identity = await self.installed.identity(request.backend)
        keys = self.supervisor.keys_of(request.backend, identity)
        log.info("stop: backend=%s replicas=%s", request.backend, [str(key) for key in keys])

        async def stop_one(key: ReplicaKey) -> None:
            try:
                await self.supervisor.stop(key, force=request.force)
            except WorkerError as error:
                log.error("stop failed: replica=%s error=%s", key, error)

        async with anyio.create_task_group() as stops:
            for key in keys:
                stops.start_soon(stop_one, key)

    async def _list(self, _payload: bytes) -> bytes:
        try:
            backends = await self.installed.rows()
        except WorkerError as error:
            return BackendListReply.failed(self._capped(str(error))).to_wire()
        rows = tuple(
            NodeBackendInfo(
                name=row.name,
                is_system=row.is_system,
                is_meta=row.is_meta,
                installed_at=row.metadata.installed_at,
                gallery_url=row.metadata.gallery_url,
                version=row.metadata.version,
                uri=row.metadata.uri,
                digest=row.metadata.digest,
            )
            for row in backends
        )
        return BackendListReply(backends=rows).to_wire()

    async def _node_stop(self, _payload: bytes) -> None:
        log.info("the frontend asks this worker to stop")
        self.request_stop()

    def _capped(self, error: str) -> str:
        room = self.bus.max_payload_bytes - _REPLY_OVERHEAD_BYTES
        return cap_error(error, min(room, _LONGEST_ERROR_BYTES))
