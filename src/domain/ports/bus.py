"""The message bus: how the frontend's commands reach the worker and the replies go back."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from ..bus_credentials import BusCredentials


@dataclass(frozen=True, slots=True)
class BusMessage:
    """One message as it came; `reply_to` is empty when the sender wants no answer."""

    subject: str
    payload: bytes
    reply_to: str = ""


class Subscription(Protocol):
    """A live subscription: an async iterator of its messages, in the order they came.

    Iteration ends when the subscription or the bus is closed. Messages that came before an
    `unsubscribe` may still be read.
    """

    def __aiter__(self) -> AsyncIterator[BusMessage]: ...

    async def unsubscribe(self) -> None:
        """Stop receiving; idempotent."""


class MessageBus(Protocol):
    """Publish, subscribe and request by subject, with NATS' subject rules (`*` one token, `>` the rest).

    At-most-once, no persistence: who is not subscribed when a message is sent never sees it.
    A bus reconnects for ever by itself once opened; subscriptions survive a reconnect. The server is asked
    for each of them again then, and a subject it denies from now on is told in the log and in `denied`.
    """

    @property
    def connected(self) -> bool:
        """True while a message published now would reach the server."""

    @property
    def login_refused(self) -> bool:
        """True while the server does not take our login: it is wrong, withdrawn or expired."""

    @property
    def denied(self) -> tuple[str, ...]:
        """The subjects of subscriptions that the server refuses us since the last reconnect."""

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload the bus takes (NATS default: 1 MiB)."""

    async def open(self) -> None:
        """Connect; return once connected, however long the server stays away (the caller bounds it).

        Failed attempts are repeated every 2 s and logged with the server's masked name: at once, for every
        new reason, and then every ten minutes.

        Raises:
            BusLoginRefused: the server wants a login, and neither its address nor `login` gave one; the
                bus can be opened again.
            BusUnavailable: the address or the TLS files are malformed, so retrying cannot help.
        """

    async def login(self, credentials: BusCredentials) -> None:
        """Log in with `credentials` from now on, also before `open`.

        A connected bus moves to a connection of the new login and neither loses nor doubles a message;
        if the server refuses it, that is logged, and the bus keeps the old connection while it lasts.
        """

    async def close(self) -> None:
        """Send what is queued (5 s at most), end every subscription, disconnect; idempotent."""

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send without waiting for anybody.

        Raises:
            PayloadTooLarge: the payload exceeds `max_payload_bytes`; nothing was sent.
            BusUnavailable: the bus is closed, or disconnected with its buffer full.
        """

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Send and wait for the first reply.

        Raises:
            NoResponders: nobody is subscribed to `subject`.
            RequestTimedOut: no reply within `timeout_s` seconds.
            PayloadTooLarge, BusUnavailable: as in `publish`.
        """

    async def subscribe(self, subject: str) -> Subscription:
        """Listen on `subject`; on return the server has confirmed it, or the bus is disconnected and will.

        Raises:
            SubscriptionDenied: the server refuses this subject.
            BusUnavailable: the bus was never opened or is closed.
        """
