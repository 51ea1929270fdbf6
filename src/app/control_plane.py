"""The control plane: each bus subject decoded, handed to a service, and answered exactly once."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import anyio
from anyio.abc import TaskStatus

from ..domain.addresses import NodeAddresses
from ..domain.errors import BusUnavailable, PayloadTooLarge
from ..domain.messages.backend import (
    BackendDeleteReply,
    BackendDeleteRequest,
    BackendInstallReply,
    BackendInstallRequest,
    BackendUpgradeReply,
    BackendUpgradeRequest,
)
from ..domain.messages.backend_list import BackendListReply
from ..domain.messages.model import (
    ModelDeleteReply,
    ModelDeleteRequest,
    ModelsRunningReply,
    ModelStopReply,
    ModelStopRequest,
    ModelUnloadReply,
    ModelUnloadRequest,
)
from ..domain.messages.subjects import NodeSubjects
from ..domain.node import NodeId
from ..domain.ports.bus import BusMessage, MessageBus, Subscription
from .commands.backend import BackendCommands
from .commands.command import Command, Reply, fitting, request, unread
from .commands.model import ModelCommands
from .storage import Storage

log = logging.getLogger(__name__)

_REPLY_S = 5.0  # a publish returns at once unless the bus is in trouble
_LEAVE_S = 2.0  # to unsubscribe and read what has come; at once unless the bus is in trouble
_GOING_DOWN = "this worker is shutting down; ask another node"


@dataclass
class _Served:
    """The commands of one node id while they are served."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    subscriptions: list[Subscription] = field(default_factory=list)
    left: bool = False
    unread: int = 0  # subscriptions that have not come to their end
    all_read: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)

    def has_read(self) -> None:
        """A subscription has come to its end."""
        self.unread -= 1
        if not self.unread:
            self.all_read.set()


@dataclass
class ControlPlane:
    """Serves the frontend's commands for one node.

    Messages are handled concurrently; order and exclusion are the services' business (D8).
    `request_stop` is called for the node stop command.
    """

    bus: MessageBus
    backends: BackendCommands
    models: ModelCommands
    addresses: NodeAddresses
    request_stop: Callable[[], None]
    storage: Storage | None = None
    _served: dict[NodeId, "_Served"] = field(default_factory=dict)
    _refusing: bool = False

    def refuse_new_work(self) -> None:
        """From now on commands that begin something are refused with the reason; others are still served."""
        self._refusing = True

    async def serve(self, node_id: NodeId, *, task_status: TaskStatus[None]) -> None:
        """Answer the commands of `node_id` until cancelled or left; reports once every subscription stands.

        Raises:
            SubscriptionDenied, BusUnavailable: the bus does not let us listen, or ends a subscription.
        """
        served = self._served[node_id] = _Served()
        try:
            async with anyio.create_task_group() as tasks:
                served.scope = tasks.cancel_scope
                for command in self._commands(NodeSubjects(node_id)):
                    subscription = await self.bus.subscribe(command.subject)
                    served.subscriptions.append(subscription)
                    served.unread += 1
                    tasks.start_soon(self._serve_command, command, subscription, served)
                task_status.started()
        finally:
            del self._served[node_id]
            with anyio.move_on_after(_LEAVE_S, shield=True):
                await self._leave(served)
            served.all_read.set()
            served.ended.set()

    def serves(self, node_id: NodeId) -> bool:
        """Whether the commands of `node_id` are taken."""
        return node_id in self._served and not self._served[node_id].left

    async def leave(self, node_id: NodeId) -> None:
        """Take no more commands for `node_id`; those at work are finished. The node goes by another id."""
        await self._leave(self._served[node_id])

    async def close(self) -> None:
        """Stop serving; commands still at work are cancelled and answer that the worker is shutting down.

        Who asks later is told by the bus that nobody listens, also while the bus still has something to send.
        """
        for served in tuple(self._served.values()):
            with anyio.move_on_after(_LEAVE_S):
                await self._leave(served)
                await served.all_read.wait()
            served.scope.cancel()
            await served.ended.wait()

    async def _leave(self, served: "_Served") -> None:
        served.left = True
        for subscription in served.subscriptions:
            await subscription.unsubscribe()

    def _commands(self, subjects: NodeSubjects) -> tuple[Command, ...]:
        backends, models = self.backends, self.models
        return (
            request(
                subjects.install,
                BackendInstallRequest.from_wire,
                partial(backends.install, subjects),
                BackendInstallReply.failed,
                new_work=True,
            ),
            request(
                subjects.upgrade,
                BackendUpgradeRequest.from_wire,
                partial(backends.upgrade, subjects),
                BackendUpgradeReply.failed,
                BackendUpgradeReply.malformed,
                new_work=True,
            ),
            request(
                subjects.delete,
                BackendDeleteRequest.from_wire,
                backends.delete,
                BackendDeleteReply.failed,
                BackendDeleteReply.malformed,
                new_work=True,
            ),
            request(subjects.list, unread, backends.list, BackendListReply.failed),
            request(subjects.models_running, unread, models.running, ModelsRunningReply.failed),
            request(
                subjects.model_stop,
                ModelStopRequest.from_wire,
                models.stop,
                lambda why: ModelStopReply.failed(why, process_key="", matched=False),
            ),
            request(
                subjects.model_unload, ModelUnloadRequest.from_wire, models.unload, ModelUnloadReply.failed
            ),
            request(
                subjects.model_delete,
                ModelDeleteRequest.from_wire,
                models.delete,
                ModelDeleteReply.failed,
                ModelDeleteReply.malformed,
                new_work=True,
            ),
            Command(subjects.stop, backends.stop),
            Command(subjects.node_stop, self._node_stop),
            *(self.storage.served(subjects) if self.storage else ()),
        )

    async def _serve_command(self, command: Command, subscription: Subscription, served: "_Served") -> None:
        async with anyio.create_task_group() as tasks:
            async for message in subscription:
                tasks.start_soon(self._answer, command, message)
            served.has_read()
            # Reconnecting is the bus's business. When it gives up, a worker that hears nothing must not live
            # on as if all were well (N-B28).
            if not served.left:
                raise BusUnavailable(command.subject, "the bus has ended the subscription")

    async def _answer(self, command: Command, message: BusMessage) -> None:
        """Handle one message; whatever happens, exactly one reply goes out if one is wanted."""
        reply: Reply | None = None
        try:
            if command.new_work and command.failed and self._refusing:
                log.info("request refused, the worker is shutting down: subject=%s", message.subject)
                reply = command.failed(_GOING_DOWN)
            else:
                reply = await command.handle(message.payload)
        except Exception as error:
            # A bug in a handler must neither end the worker nor leave the frontend to wait its timeout out.
            log.exception("command failed: subject=%s", message.subject)
            reply = command.failed(_bug(error)) if command.failed else None
        except anyio.get_cancelled_exc_class():
            # The worker is going down in the middle of this command: say so rather than fall silent.
            reply = command.failed(_GOING_DOWN) if command.failed else None
            raise
        finally:
            if reply is not None and message.reply_to:
                with anyio.move_on_after(_REPLY_S, shield=True):  # cancelled or not, it is on its way
                    await self._reply(command, message, reply)

    async def _reply(self, command: Command, message: BusMessage, reply: Reply) -> None:
        assert command.failed is not None, "what replies can fail"
        limit_bytes = self.bus.max_payload_bytes
        try:
            written = fitting(reply, limit_bytes, command.failed)
        except Exception as error:
            log.exception("reply cannot be written: subject=%s", message.subject)
            written = fitting(command.failed(_bug(error)), limit_bytes, command.failed)
        try:
            await self.bus.publish(message.reply_to, written)
        except (BusUnavailable, PayloadTooLarge) as error:
            log.error("reply lost: subject=%s error=%s", message.subject, error)

    async def _node_stop(self, _payload: bytes) -> None:
        log.info("the frontend asks this worker to stop")
        self.request_stop()


def _bug(error: Exception) -> str:
    return f"internal error of the worker: {type(error).__name__}: {error}; see its log"
