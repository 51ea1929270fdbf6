"""The server that message buses in memory connect to."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from ...domain.bus_credentials import BusCredentials
from ...domain.ports.bus import BusMessage

if TYPE_CHECKING:
    from .bus import InMemoryMessageBus, InMemorySubscription

MAX_PAYLOAD_BYTES = 1024 * 1024  # the NATS server's default


def matches(pattern: str, subject: str) -> bool:
    """NATS' rule: `*` stands for any one token, a last `>` for one or more."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        fits = len(given) > len(wanted)
    else:
        fits = len(given) == len(wanted)
    return fits and all(token in {"*", part} for token, part in zip(wanted, given, strict=False))


@dataclass(eq=False)
class Request:
    """A request on its way; `reply` stays None when nobody listens."""

    bus: "InMemoryMessageBus"
    reply_to: str
    reply: BusMessage | None = None
    settled: anyio.Event = field(default_factory=anyio.Event)

    def settle(self, reply: BusMessage | None) -> None:
        """Take the first answer."""
        if not self.settled.is_set():
            self.reply = reply
            self.settled.set()


class InMemoryBroker:
    """The server that buses in memory connect to; what they do to each other happens at once, in order.

    `denied_subjects` (wildcards allowed) are refused to every subscriber. Set `offline` to pull the
    plug for all, or a bus's own `offline` for one; set it back and they are connected again. `admits` tells
    which login is good at the moment (None: a client that shows none).
    """

    def __init__(
        self,
        *,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        denied_subjects: Iterable[str] = (),
        admits: Callable[[BusCredentials | None], bool] = lambda _: True,
    ) -> None:
        self._admits = admits
        self.max_payload_bytes = max_payload_bytes
        self.denied_subjects = tuple(denied_subjects)
        self._offline = False
        self._buses: dict[InMemoryMessageBus, None] = {}  # in the order they were opened
        self._exact: dict[str, dict[InMemorySubscription, None]] = {}
        self._wild: dict[InMemorySubscription, None] = {}
        self._requests: dict[str, Request] = {}
        self._numbers = itertools.count(1)

    @property
    def offline(self) -> bool:
        return self._offline

    @offline.setter
    def offline(self, offline: bool) -> None:
        self._offline = offline
        for bus in tuple(self._buses):
            bus.flush()

    @property
    def admits(self) -> Callable[[BusCredentials | None], bool]:
        return self._admits

    @admits.setter
    def admits(self, admits: Callable[[BusCredentials | None], bool]) -> None:
        self._admits = admits
        for bus in tuple(self._buses):
            bus.flush()

    def attach(self, bus: "InMemoryMessageBus") -> None:
        """Let `bus` in."""
        self._buses[bus] = None

    def detach(self, bus: "InMemoryMessageBus") -> None:
        """Forget `bus`; its subscriptions go by `remove`."""
        self._buses.pop(bus, None)

    def denies(self, subject: str) -> bool:
        return any(matches(pattern, subject) for pattern in self.denied_subjects)

    def add(self, subscription: "InMemorySubscription") -> None:
        """Deliver to `subscription` from now on, whenever its bus is connected."""
        if {"*", ">"}.isdisjoint(subscription.subject.split(".")):
            self._exact.setdefault(subscription.subject, {})[subscription] = None
        else:
            self._wild[subscription] = None

    def remove(self, subscription: "InMemorySubscription") -> None:
        self._wild.pop(subscription, None)
        if same_subject := self._exact.get(subscription.subject):
            same_subject.pop(subscription, None)
            if not same_subject:
                del self._exact[subscription.subject]

    @contextmanager
    def request(self, bus: "InMemoryMessageBus") -> Iterator["Request"]:
        """A place for the reply to one request of `bus`."""
        request = Request(bus, f"_INBOX.{next(self._numbers)}")
        self._requests[request.reply_to] = request
        try:
            yield request
        finally:
            del self._requests[request.reply_to]

    def requests_of(self, bus: "InMemoryMessageBus") -> list["Request"]:
        return [request for request in self._requests.values() if request.bus is bus]

    def route(self, message: BusMessage) -> None:
        """Deliver to everybody who listens and is connected; tell a requester if that is nobody."""
        heard = False
        if (request := self._requests.get(message.subject)) is not None and request.bus.connected:
            request.settle(message)
            heard = True
        for subscription in (
            *self._exact.get(message.subject, ()),
            *(wild for wild in self._wild if matches(wild.subject, message.subject)),
        ):
            if subscription.bus.connected and not self.denies(subscription.subject):
                subscription.deliver(message)
                heard = True
        if not heard and (asking := self._requests.get(message.reply_to)) is not None:
            asking.settle(None)
