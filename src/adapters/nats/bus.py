"""The `MessageBus` over NATS, by nats-py (imported when the bus is opened)."""

import asyncio
import importlib.util
import logging
import re
from typing import TYPE_CHECKING

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
from .listeners import Listeners
from .outbox import Outbox, Outgoing
from .servers import DEFAULT_SERVER, mask, parse_servers
from .subscription import Inbox, NatsSubscription
from .tls import TlsFiles

if TYPE_CHECKING:
    from .link import Link

log = logging.getLogger(__name__)

RETRY_S = 2.0  # nats.go's wait between two attempts at one server
LOGIN_S = 30.0  # what a move to a new login may take: connecting, and three round trips of 10 s at most
CLOSE_S = 5.0  # LocalAI's bound of the last flush
MAX_PAYLOAD_BYTES = 1024 * 1024  # NATS' default, until a server has told its own
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
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self._connector: Connector | None = None
        self._credentials: BusCredentials | None = None
        self._moves: asyncio.Queue[asyncio.Event] = asyncio.Queue()  # each is set when it is over
        self._ready = asyncio.Event()  # the link has every subscription and nothing waits to be sent
        self._max_payload_bytes = MAX_PAYLOAD_BYTES
        self._listeners = Listeners()
        self._inbox: Inbox | None = None
        self._outbox = Outbox()

    @property
    def connected(self) -> bool:
        link = self._listeners.link
        return self._ready.is_set() and link is not None and not link.ended.is_set()

    @property
    def login_refused(self) -> bool:
        return self._connector is not None and self._connector.refused

    @property
    def denied(self) -> tuple[str, ...]:
        return self._listeners.denied

    @property
    def max_payload_bytes(self) -> int:
        return self._max_payload_bytes

    async def open(self) -> None:
        if self._closed:
            raise BusUnavailable(self._name, "the bus is closed")
        if self._keeper is not None:
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
        self._keeper = keeper = asyncio.create_task(self._keep_connected(connector), name="nats bus")
        keeper.add_done_callback(self._keeper_ended)
        connected = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({keeper, connected}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._let_go()
            raise
        finally:
            connected.cancel()
        if keeper.done() and not keeper.cancelled():
            await self._let_go()
            keeper.result()
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
        if self._listeners.link is not None:
            over = asyncio.Event()
            self._moves.put_nowait(over)
            with anyio.move_on_after(LOGIN_S):
                await over.wait()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            with anyio.move_on_after(CLOSE_S):
                if self._outbox:
                    await self._ready.wait()
                if self._listeners.link is not None:
                    await self._listeners.link.confirm()
        finally:
            if self._outbox:
                log.warning("message bus closed with %d messages unsent", len(self._outbox))
            await self._let_go()

    async def publish(self, subject: str, payload: bytes) -> None:
        await self._send(Outgoing(subject, payload))

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        if self._inbox is None:
            self._check_open()
            self._inbox = Inbox(lambda: BusUnavailable(self._name, "the bus is closed"))
            await self._listeners.add(self._inbox)
        with self._inbox.expecting() as (reply_to, reply):
            with anyio.move_on_after(timeout_s):
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
        subscription = NatsSubscription(subject, self._listeners.remove)
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

    async def _keep_connected(self, connector: Connector) -> None:
        while True:
            link: Link | None = await connector.connect()
            while link is not None:
                link = await self._serve(link, connector)

    async def _serve(self, link: "Link", connector: Connector) -> "Link | None":
        """Use `link` until it ends, or until everything has moved to another, which is returned."""
        from .link import LinkLost

        successor: Link | None = None
        try:
            self._max_payload_bytes = link.max_payload_bytes
            if self._listeners.link is not link:
                await self._listeners.settle(link)
                log.info("message bus %s: connected", link.server)
            await self._send_waiting(link)
            self._ready.set()
            successor = await self._serve_until_moved(link, connector)
        except LinkLost:
            log.debug("message bus %s: lost while the connection was set up", link.server)
        finally:
            if successor is None:
                self._ready.clear()
                self._listeners.link = None
                self._end_moves()
            await link.close()
        if successor is None:
            log.warning("message bus %s: disconnected: %s", link.server, link.reason)
            connector.learn_from(link)
        return successor

    async def _serve_until_moved(self, link: "Link", connector: Connector) -> "Link | None":
        while True:
            move = asyncio.create_task(self._moves.get())
            ended = asyncio.create_task(link.ended.wait())
            try:
                await asyncio.wait({move, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                move.cancel()
                ended.cancel()
            if not move.done() or move.cancelled():
                return None
            try:
                if (successor := await self._move(link, connector)) is not None:
                    return successor
            finally:
                move.result().set()

    async def _move(self, link: "Link", connector: Connector) -> "Link | None":
        """Move everything to a connection of the new login; None where that fails."""
        from .link import LinkLost

        try:
            successor = await connector.connect_beside(link)
        except BusUnavailable as error:
            log.error("message bus %s: the old login is kept while it lasts: %s", link.server, error)
            return None
        try:
            await self._listeners.move(successor)
        except LinkLost as error:
            log.error("message bus %s: the new login was lost again: %s", link.server, error)
        finally:
            if self._listeners.link is not successor:
                await successor.close()
        if self._listeners.link is not successor:
            return None
        log.info("message bus %s: moved to the new login", successor.server)
        return successor

    def _end_moves(self) -> None:
        """Without a connection nothing moves; the next one has the new login anyway."""
        while not self._moves.empty():
            self._moves.get_nowait().set()

    async def _send_waiting(self, link: "Link") -> None:
        while self._outbox:
            message = self._outbox.first()
            if len(message.payload) > link.max_payload_bytes:  # it came while another server's limit held
                error = PayloadTooLarge(message.subject, len(message.payload), link.max_payload_bytes)
                log.error("dropped: %s", error)
            else:
                await link.publish(message.subject, message.payload, message.reply_to)
            self._outbox.drop_first()

    async def _send(self, message: Outgoing) -> None:
        from .link import LinkLost

        self._check_open()
        if not _SUBJECT.fullmatch(message.subject):
            raise ValueError(f"not a subject: {message.subject!r}")
        if len(message.payload) > self._max_payload_bytes:
            raise PayloadTooLarge(message.subject, len(message.payload), self._max_payload_bytes)
        link = self._listeners.link
        if link is not None and self._ready.is_set():
            try:
                return await link.publish(message.subject, message.payload, message.reply_to)
            except LinkLost:
                log.debug("kept for the next connection: a message on %s", message.subject)
        if not self._outbox.put(message):
            raise BusUnavailable(self._name, "disconnected, and the buffer is full", retrying=True)
        return None

    async def _listen(self, subscription: NatsSubscription) -> str | None:
        """Listen; the server's refusal, if any. While disconnected it is asked later, so there is none."""
        link = await self._listeners.add(subscription)
        if link is None:
            return None
        await link.confirm()
        return link.denial(subscription.subject)

    async def _let_go(self) -> None:
        """End the keeper, its connection and every listener; what was opened can be opened again."""
        keeper, self._keeper = self._keeper, None
        self._listeners.end()
        self._end_moves()
        self._inbox = None
        self._outbox.clear()
        with anyio.CancelScope(shield=True):
            while keeper is not None and not keeper.done():
                keeper.cancel()  # again if need be: nats-py swallows it while it waits to write
                await asyncio.wait({keeper}, timeout=2.0)

    def _keeper_ended(self, keeper: "asyncio.Task[None]") -> None:
        """`open` tells what was foreseen; for anything else nobody waits any more."""
        if keeper.cancelled() or isinstance(bug := keeper.exception(), BusUnavailable | None):
            return
        log.critical("message bus %s: given up, this is a bug", self._name, exc_info=bug)
        self._closed = True
        self._listeners.end()

    def _check_open(self) -> None:
        if self._closed or self._keeper is None:
            raise BusUnavailable(
                self._name, "the bus is closed" if self._closed else "the bus was never opened"
            )
