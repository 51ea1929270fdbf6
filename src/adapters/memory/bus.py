"""A `MessageBus` in memory: any number of them share a broker."""

import asyncio
import logging
import re
from collections import deque
from typing import Self

import anyio
from anyio.lowlevel import checkpoint

from ...domain.bus_credentials import BusCredentials
from ...domain.errors import (
    BusLoginRefused,
    BusUnavailable,
    NoResponders,
    PayloadTooLarge,
    RequestTimedOut,
    SubscriptionDenied,
)
from ...domain.ports.bus import BusMessage
from .broker import InMemoryBroker

__all__ = ["InMemoryBroker", "InMemoryMessageBus", "InMemorySubscription"]

log = logging.getLogger(__name__)

BUFFER_BYTES = 8 * 1024 * 1024  # what a disconnected bus keeps, as in the NATS adapter
CLOSE_S = 5.0  # how long it waits at its end to get rid of that, as in the NATS adapter
# What the NATS protocol can carry: no white space, and in a subscription wildcards only as whole tokens.
_SUBJECT = re.compile(r"[^\s\ud800-\udfff]+")
_PATTERN = re.compile(r"((\*|[^\s.*>\ud800-\udfff]+)\.)*(\*|>|[^\s.*>\ud800-\udfff]+)")


class InMemoryMessageBus:
    """One client of an `InMemoryBroker`, with the NATS adapter's behaviour: it buffers while offline."""

    def __init__(self, broker: InMemoryBroker) -> None:
        self._broker = broker
        self._opened = False
        self._closed = False
        self._offline = False
        self._reconnected = anyio.Event()
        self._subscriptions: dict[InMemorySubscription, None] = {}
        self._buffer: deque[BusMessage] = deque()
        self._buffer_bytes = 0
        self.credentials: BusCredentials | None = None

    @property
    def offline(self) -> bool:
        """True while this bus alone is cut off; the broker may be offline besides."""
        return self._offline

    @offline.setter
    def offline(self, offline: bool) -> None:
        self._offline = offline
        self.flush()

    @property
    def connected(self) -> bool:
        return self._opened and not self._offline and not self._broker.offline and not self.login_refused

    @property
    def login_refused(self) -> bool:
        return not self._broker.admits(self.credentials)

    @property
    def denied(self) -> tuple[str, ...]:
        listening = self._subscriptions if self.connected else ()
        return tuple(each.subject for each in listening if self._broker.denies(each.subject))

    @property
    def max_payload_bytes(self) -> int:
        return self._broker.max_payload_bytes

    async def open(self) -> None:
        await checkpoint()
        if self._closed:
            raise BusUnavailable("memory", "the bus is closed")
        if self._opened:
            raise RuntimeError("open() was called before")
        if self.login_refused and self.credentials is None and not self._broker.offline:
            raise BusLoginRefused("memory", "the in-memory broker wants a login")
        self._opened = True
        self._broker.attach(self)
        try:
            await self._connection()
        except BaseException:  # cancelled: it can be opened again
            self._let_go()
            raise
        if self._closed:
            raise BusUnavailable("memory", "the bus was closed before it was connected")

    async def login(self, credentials: BusCredentials) -> None:
        await checkpoint()
        self.credentials = credentials
        self.flush()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await checkpoint()
            if self._buffer:
                with anyio.move_on_after(CLOSE_S):
                    await self._connection()
        finally:
            if self._buffer:
                log.warning("message bus closed with %d messages unsent", len(self._buffer))
            self._let_go()

    def sever(self) -> None:
        """Be cut off for good, as the client of a killed process: nothing more is sent or received."""
        self._closed = True
        self._let_go()

    async def publish(self, subject: str, payload: bytes) -> None:
        await checkpoint()
        self._send(BusMessage(subject, payload))

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        await checkpoint()
        with self._broker.request(self) as request:
            with anyio.move_on_after(timeout_s):
                self._send(BusMessage(subject, payload, request.reply_to))
                await request.settled.wait()
                if self._closed:
                    raise BusUnavailable("memory", "the bus is closed")
                if request.reply is None:
                    raise NoResponders(subject)
                return request.reply.payload
        raise RequestTimedOut(subject, timeout_s)

    async def subscribe(self, subject: str) -> "InMemorySubscription":
        await checkpoint()
        self._check_open()
        if not _PATTERN.fullmatch(subject):
            raise ValueError(f"not a subject to subscribe to: {subject!r}")
        if self.connected and self._broker.denies(subject):
            raise SubscriptionDenied(subject, "the in-memory broker denies it")
        subscription = InMemorySubscription(subject, self)
        self._subscriptions[subscription] = None
        self._broker.add(subscription)
        return subscription

    def forget(self, subscription: "InMemorySubscription") -> None:
        """Deliver nothing more to `subscription`."""
        self._broker.remove(subscription)
        self._subscriptions.pop(subscription, None)

    def flush(self) -> None:
        """If connected, send what waited, and wake those who wait for that."""
        if not self.connected:
            return
        while self._buffer:
            message = self._buffer.popleft()
            self._broker.route(message)
        self._buffer_bytes = 0
        self._reconnected.set()
        self._reconnected = anyio.Event()

    async def _connection(self) -> None:
        while self._opened and not self.connected:
            await self._reconnected.wait()

    def _send(self, message: BusMessage) -> None:
        self._check_open()
        if not _SUBJECT.fullmatch(message.subject):
            raise ValueError(f"not a subject: {message.subject!r}")
        if len(message.payload) > self.max_payload_bytes:
            raise PayloadTooLarge(message.subject, len(message.payload), self.max_payload_bytes)
        if self.connected:
            self._broker.route(message)
        elif self._buffer_bytes + len(message.payload) > BUFFER_BYTES:
            raise BusUnavailable("memory", "disconnected, and the buffer is full", retrying=True)
        else:
            self._buffer.append(message)
            self._buffer_bytes += len(message.payload)

    def _let_go(self) -> None:
        self._opened = False
        self._broker.detach(self)
        for subscription in tuple(self._subscriptions):
            subscription.end()
        for request in self._broker.requests_of(self):
            request.settle(None)
        self._buffer.clear()
        self._buffer_bytes = 0
        self._reconnected.set()
        self._reconnected = anyio.Event()

    def _check_open(self) -> None:
        if self._closed or not self._opened:
            raise BusUnavailable(
                "memory", "the bus is closed" if self._closed else "the bus was never opened"
            )


class InMemorySubscription:
    """The messages of one subject, in order; made by `InMemoryMessageBus.subscribe`.

    One at rest is small: a fleet has ten for every node.
    """

    __slots__ = ("_ended", "_messages", "_waiting", "bus", "subject")

    def __init__(self, subject: str, bus: InMemoryMessageBus) -> None:
        self.subject = subject
        self.bus = bus
        self._messages: deque[BusMessage] | None = None  # None while there is none
        self._waiting: tuple[asyncio.Future[None], ...] = ()
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BusMessage:
        await checkpoint()
        while not self._messages:
            if self._ended:
                raise StopAsyncIteration
            waiting = asyncio.get_running_loop().create_future()
            self._waiting = (*self._waiting, waiting)
            try:
                await waiting
            finally:
                self._waiting = tuple(each for each in self._waiting if each is not waiting)
        message = self._messages.popleft()
        if not self._messages:
            self._messages = None
        return message

    async def unsubscribe(self) -> None:
        """Stop receiving; idempotent."""
        await checkpoint()
        self.end()

    def deliver(self, message: BusMessage) -> None:
        if self._messages is None:
            self._messages = deque()
        self._messages.append(message)
        self._wake()

    def end(self) -> None:
        """Let the reader come to an end after what is there."""
        if not self._ended:
            self._ended = True
            self.bus.forget(self)
            self._wake()

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
