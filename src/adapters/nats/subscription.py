"""What listens on the bus: subscriptions, and the inbox that replies come to. Both outlive connections."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import anyio

from ...domain.ports.bus import BusMessage

log = logging.getLogger(__name__)

# What may wait for a slow reader, as in nats.go; beyond it new messages are dropped, and that is said.
PENDING_MESSAGES = 500_000
PENDING_BYTES = 64 * 1024 * 1024


class NatsSubscription:
    """The messages of one subject, in order; made by `NatsMessageBus.subscribe`."""

    def __init__(self, subject: str, drop: Callable[["NatsSubscription"], Awaitable[None]]) -> None:
        self.subject = subject
        self._drop = drop
        self._messages: asyncio.Queue[BusMessage | None] = asyncio.Queue()  # None ends it
        self._pending_bytes = 0
        self._overflowing = False
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BusMessage:
        await anyio.lowlevel.checkpoint()  # a full queue must not keep every other task waiting
        message = await self._messages.get()
        if message is None:
            self._messages.put_nowait(None)  # for the next to ask
            raise StopAsyncIteration
        self._pending_bytes -= len(message.payload)
        return message

    async def unsubscribe(self) -> None:
        """Stop receiving; idempotent."""
        if not self._ended:
            self.end()
            await self._drop(self)

    def deliver(self, message: BusMessage, no_responders: bool) -> None:
        """Keep one message for the reader."""
        if self._ended or no_responders:
            return
        full = (
            self._messages.qsize() >= PENDING_MESSAGES
            or self._pending_bytes + len(message.payload) > PENDING_BYTES
        )
        if full and not self._overflowing:
            log.error("messages on %s are dropped: %d wait unread", self.subject, self._messages.qsize())
        self._overflowing = full
        if not full:
            self._pending_bytes += len(message.payload)
            self._messages.put_nowait(message)

    def end(self) -> None:
        """Let the reader come to an end after what is there."""
        if not self._ended:
            self._ended = True
            self._messages.put_nowait(None)


@dataclass(eq=False)
class Inbox:
    """Where the replies to all requests of one bus arrive, told apart by the last token of the subject.

    Under `_INBOX.`, which is what a minted NATS login may use.
    """

    closed: Callable[[], Exception]  # what a request gets when the bus closes before its reply
    _prefix: str = field(default_factory=lambda: f"_INBOX.{secrets.token_hex(11)}")
    _replies: dict[str, asyncio.Future[BusMessage | None]] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        return f"{self._prefix}.*"

    @contextmanager
    def expecting(self) -> Iterator[tuple[str, asyncio.Future[BusMessage | None]]]:
        """The subject for one reply and where it comes out: None when nobody listens to the request."""
        reply_to = f"{self._prefix}.{secrets.token_hex(8)}"
        self._replies[reply_to] = asyncio.get_running_loop().create_future()
        try:
            yield reply_to, self._replies[reply_to]
        finally:
            del self._replies[reply_to]

    def deliver(self, message: BusMessage, no_responders: bool) -> None:
        reply = self._replies.get(message.subject)
        if reply is not None and not reply.done():
            reply.set_result(None if no_responders else message)

    def end(self) -> None:
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(self.closed())
