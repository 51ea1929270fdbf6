"""The `MessageBus` over NATS, by nats-py (imported when the bus is opened)."""

import asyncio
import importlib.util
import logging
import re

import anyio

from ...domain.bus_credentials import BusCredentials
from ...domain.errors import (
    BusUnavailable,
    NoResponders,
    PayloadTooLarge,
    RequestTimedOut,
    SubscriptionDenied,
)
from .connector import Connector
from .keeper import Keeper
from .outbox import Outgoing
from .servers import DEFAULT_SERVER, mask, parse_servers
from .subscription import Inbox, NatsSubscription
from .tls import TlsFiles

log = logging.getLogger(__name__)

RETRY_S = 2.0  # nats.go's wait between two attempts at one server
CLOSE_S = 5.0  # LocalAI's bound of the last flush
# What the NATS protocol can carry: no white space, and in a subscription wildcards only as whole tokens.
_SUBJECT = re.compile(r"[^\s\ud800-\udfff]+")
_PATTERN = re.compile(r"((\*|[^\s.*>\ud800-\udfff]+)\.)*(\*|>|[^\s.*>\ud800-\udfff]+)")


class NatsMessageBus:
    """A `MessageBus` on one of `servers`, a comma list as LOCALAI_NATS_URL has it; empty is this machine.

    A task of its own keeps the connection: it logs in, asks for every subscription again, sends what
    waited, and starts over when the connection ends, whatever ended it: a restart, an expired login, an
    error of the protocol. With `tls`, nothing passes in the clear even for `nats://`.
    Source: LocalAI core/services/messaging/client.go.
    """

    def __init__(
        self,
        servers: str = "",
        *,
        client_name: str = "",
        tls: TlsFiles | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        self._servers = servers
        self._name = mask(servers) or DEFAULT_SERVER  # for people: credentials masked
        self._client_name = client_name
        self._tls = tls
        self._retry_s = retry_s
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._connector: Connector | None = None
        self._credentials: BusCredentials | None = None
        self._keeper = Keeper()
        self._inbox: Inbox | None = None

    @property
    def connected(self) -> bool:
        return self._keeper.connected

    @property
    def login_refused(self) -> bool:
        return self._connector is not None and self._connector.refused

    @property
    def denied(self) -> tuple[str, ...]:
        return self._keeper.listeners.denied

    @property
    def max_payload_bytes(self) -> int:
        return self._keeper.max_payload_bytes

    async def open(self) -> None:
        if self._closed:
            raise BusUnavailable(self._name, "the bus is closed")
        if self._task is not None:
            raise RuntimeError("open() was called before")
        servers = parse_servers(self._servers)
        self._name = ", ".join(str(server) for server in servers)
        web = any(server.scheme in {"ws", "wss"} for server in servers)
        if web and importlib.util.find_spec("aiohttp") is None:
            raise BusUnavailable(self._name, "WebSocket addresses need the package aiohttp")
        try:
            tls = self._tls.context() if self._tls is not None else None
        except ValueError as error:
            raise BusUnavailable(self._name, str(error)) from error
        self._connector = connector = Connector(
            servers, name=self._client_name, tls=tls, retry_s=self._retry_s
        )
        if self._credentials is not None:
            connector.use(self._credentials)
        self._task = task = asyncio.create_task(self._keeper.run(connector), name="nats bus")
        task.add_done_callback(self._task_ended)
        connected = asyncio.create_task(self._keeper.ready.wait())
        try:
            await asyncio.wait({task, connected}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._let_go()
            raise
        finally:
            connected.cancel()
        if task.done() and not task.cancelled():
            await self._let_go()
            task.result()
        if self._closed:
            raise BusUnavailable(self._name, "the bus was closed before it was connected")

    async def login(self, credentials: BusCredentials) -> None:
        await anyio.lowlevel.checkpoint()
        if credentials == self._credentials:
            return
        self._credentials = credentials
        if self._connector is None:
            return
        self._connector.use(credentials)
        await self._keeper.move()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            with anyio.move_on_after(CLOSE_S):
                if self._keeper.outbox:
                    await self._keeper.ready.wait()
                if self._keeper.listeners.link is not None:
                    await self._keeper.listeners.link.confirm()
        finally:
            if self._keeper.outbox:
                log.warning("message bus closed with %d messages unsent", len(self._keeper.outbox))
            await self._let_go()

    async def publish(self, subject: str, payload: bytes) -> None:
        await self._send(Outgoing(subject, payload))

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        if self._inbox is None:
            self._check_open()
            self._inbox = Inbox(lambda: BusUnavailable(self._name, "the bus is closed"))
        with self._inbox.expecting() as (reply_to, reply):
            with anyio.move_on_after(timeout_s):
                if not self._keeper.listeners.supplied(self._inbox):
                    await self._keeper.listeners.add(self._inbox)
                await self._send(Outgoing(subject, payload, reply_to))
                message = await reply
                if message is None:
                    raise NoResponders(subject)
                return message.payload
        raise RequestTimedOut(subject, timeout_s)

    async def subscribe(self, subject: str) -> NatsSubscription:
        self._check_open()
        if not _PATTERN.fullmatch(subject):
            raise ValueError(f"not a subject to subscribe to: {subject!r}")
        subscription = NatsSubscription(subject, self._keeper.listeners.remove)
        try:
            refusal = await self._listen(subscription)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await subscription.unsubscribe()
            raise
        if refusal is not None:
            await subscription.unsubscribe()
            raise SubscriptionDenied(subject, refusal)
        return subscription

    async def _send(self, message: Outgoing) -> None:
        self._check_open()
        if not _SUBJECT.fullmatch(message.subject):
            raise ValueError(f"not a subject: {message.subject!r}")
        if len(message.payload) > self._keeper.max_payload_bytes:
            raise PayloadTooLarge(message.subject, len(message.payload), self._keeper.max_payload_bytes)
        if not await self._keeper.send(message):
            raise BusUnavailable(self._name, "disconnected, and the buffer is full", retrying=True)

    async def _listen(self, subscription: NatsSubscription) -> str | None:
        """Listen; the server's refusal, if any. While disconnected it is asked later, so there is none."""
        link = await self._keeper.listeners.add(subscription)
        if link is None:
            return None
        await link.confirm()
        return link.denial(subscription.subject)

    async def _let_go(self) -> None:
        """End the keeper, its connection and every listener; what was opened can be opened again."""
        task, self._task = self._task, None
        self._keeper.end()
        self._inbox = None
        with anyio.CancelScope(shield=True):
            while task is not None and not task.done():
                task.cancel()  # again if need be: nats-py swallows it while it waits to write
                await asyncio.wait({task}, timeout=2.0)

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        """`open` tells what was foreseen; for anything else nobody waits any more."""
        if task.cancelled() or isinstance(bug := task.exception(), BusUnavailable | None):
            return
        log.critical("message bus %s: given up, this is a bug", self._name, exc_info=bug)
        self._closed = True
        self._keeper.listeners.end()

    def _check_open(self) -> None:
        if self._closed or self._task is None:
            raise BusUnavailable(
                self._name, "the bus is closed" if self._closed else "the bus was never opened"
            )
