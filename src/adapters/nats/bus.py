"""The `MessageBus` over NATS, by nats-py (imported when the bus is opened)."""

import asyncio
import importlib.util
import logging
import re
import ssl
from typing import TYPE_CHECKING

import anyio

from ...domain.errors import (
    BusUnavailable,
    NoResponders,
    PayloadTooLarge,
    RequestTimedOut,
    SubscriptionDenied,
)
from .outbox import Outbox, Outgoing
from .pool import ServerPool
from .servers import DEFAULT_SERVER, Server, mask, parse_servers
from .subscription import Inbox, Listener, NatsSubscription
from .tls import TlsFiles

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription as Handle

    from .link import Link

log = logging.getLogger(__name__)

RETRY_S = 2.0  # nats.go's wait between two attempts at one server
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
        self._link: Link | None = None
        self._ready = asyncio.Event()  # the link has every subscription and nothing waits to be sent
        self._max_payload_bytes = MAX_PAYLOAD_BYTES
        self._listeners: dict[Listener, tuple[Link, Handle] | None] = {}  # and where they are asked for
        self._inbox: Inbox | None = None
        self._outbox = Outbox()

    @property
    def connected(self) -> bool:
        return self._ready.is_set() and self._link is not None and not self._link.ended.is_set()

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
        self._keeper = keeper = asyncio.create_task(self._keep_connected(servers, tls), name="nats bus")
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
            keeper.result()
        if self._closed:
            raise BusUnavailable(self._name, "the bus was closed before it was connected")

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            with anyio.move_on_after(CLOSE_S):
                if self._outbox:
                    await self._ready.wait()
                if self._link is not None:
                    await self._link.confirm()
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
            await self._listen(self._inbox)
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
        subscription = NatsSubscription(subject, self._stop_listening)
        try:
            refusal = await self._listen_and_confirm(subscription)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await subscription.unsubscribe()
            raise
        if refusal is not None:
            await subscription.unsubscribe()
            raise SubscriptionDenied(subject, refusal)
        return subscription

    async def _keep_connected(self, servers: tuple[Server, ...], tls: ssl.SSLContext | None) -> None:
        from .link import connect  # nats-py is loaded by those who use it

        pool = ServerPool(servers, retry_s=self._retry_s)
        while True:
            server, at_s = pool.next(now_s=anyio.current_time())
            await anyio.sleep_until(at_s)
            try:
                link = await connect(server, name=self._client_name, tls=tls)
            except BusUnavailable as error:
                log.warning("%s every %g s", error, self._retry_s)
                continue
            await self._serve(link)
            log.warning("message bus %s: disconnected: %s", server, link.reason)
            pool.learn(link.discovered())

    async def _serve(self, link: "Link") -> None:
        """Use `link` until it ends."""
        from .link import LinkLost

        self._link = link
        self._max_payload_bytes = link.max_payload_bytes
        try:
            for listener in tuple(self._listeners):  # those that come later ask by themselves
                if listener in self._listeners:
                    await self._ask(listener, link)
            await link.confirm()
            for listener in self._listeners:
                if (refusal := link.denial(listener.subject)) is not None:
                    log.error("%s", SubscriptionDenied(listener.subject, refusal))
            await self._send_waiting(link)
            self._ready.set()
            log.info("message bus %s: connected", link.server)
            await link.ended.wait()
        except LinkLost:
            log.debug("message bus %s: lost while the connection was set up", link.server)
        finally:
            self._ready.clear()
            self._link = None
            await link.close()

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
        if self._link is not None and self._ready.is_set():
            try:
                return await self._link.publish(message.subject, message.payload, message.reply_to)
            except LinkLost:
                log.debug("kept for the next connection: a message on %s", message.subject)
        if not self._outbox.put(message):
            raise BusUnavailable(self._name, "disconnected, and the buffer is full", retrying=True)
        return None

    async def _listen_and_confirm(self, subscription: NatsSubscription) -> str | None:
        """Listen; the server's refusal, if any. While disconnected it is asked later, so there is none."""
        link = await self._listen(subscription)
        if link is None:
            return None
        await link.confirm()
        return link.denial(subscription.subject)

    async def _listen(self, listener: Listener) -> "Link | None":
        """Keep `listener` supplied from now on; the link that was asked, None while disconnected."""
        from .link import LinkLost

        link = self._link
        self._listeners[listener] = None
        if link is None:
            return None
        try:
            await self._ask(listener, link)
        except LinkLost:
            return None
        return link

    async def _ask(self, listener: Listener, link: "Link") -> None:
        handle = await link.listen(listener.subject, listener.deliver)
        if listener in self._listeners:
            self._listeners[listener] = (link, handle)
        else:  # its reader left meanwhile
            await link.stop_listening(handle)

    async def _stop_listening(self, listener: Listener) -> None:
        asked = self._listeners.pop(listener, None)
        if asked is not None:
            link, handle = asked
            await link.stop_listening(handle)

    async def _let_go(self) -> None:
        """End the keeper, its connection and every listener; what was opened can be opened again."""
        keeper, self._keeper = self._keeper, None
        listeners, self._listeners = self._listeners, {}
        for listener in listeners:
            listener.end()
        self._inbox = None
        self._outbox.clear()
        with anyio.CancelScope(shield=True):
            while keeper is not None and not keeper.done():
                keeper.cancel()  # again if need be: nats-py swallows it while it waits to write
                await asyncio.wait({keeper}, timeout=2.0)

    def _keeper_ended(self, keeper: "asyncio.Task[None]") -> None:
        if not keeper.cancelled() and (bug := keeper.exception()) is not None:
            log.critical("message bus %s: given up, this is a bug", self._name, exc_info=bug)
            self._closed = True
            for listener in self._listeners:
                listener.end()

    def _check_open(self) -> None:
        if self._closed or self._keeper is None:
            raise BusUnavailable(
                self._name, "the bus is closed" if self._closed else "the bus was never opened"
            )
