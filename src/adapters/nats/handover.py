"""How a subscription moves from one connection to the next without losing or doubling a message."""

from collections import Counter
from typing import Protocol

from ...domain.ports.bus import BusMessage


class Listener(Protocol):
    """Takes the messages of one subject from whatever connection there is."""

    @property
    def subject(self) -> str:
        """What to ask the server for."""

    def deliver(self, message: BusMessage, no_responders: bool) -> None:
        """Take the next message; `no_responders`: it is the server's "nobody listens"."""

    def end(self) -> None:
        """No more will come; idempotent."""


Delivery = tuple[BusMessage, bool]


class Feed:
    """The messages that one connection brings for `listener`.

    While the subscription moves, both connections bring them: the old one's feed goes on delivering and
    keeps a record, the new one's holds everything back. `release` then delivers what the old one did not.
    """

    def __init__(self, listener: Listener, *, held: bool = False) -> None:
        self.listener = listener
        self._held: list[Delivery] | None = [] if held else None
        self._record: list[Delivery] | None = None

    def deliver(self, message: BusMessage, no_responders: bool) -> None:
        """Take the next message of the connection."""
        if self._held is not None:
            self._held.append((message, no_responders))
            return
        if self._record is not None:
            self._record.append((message, no_responders))
        self.listener.deliver(message, no_responders)

    def keep_record(self) -> None:
        """Remember from now on what is delivered."""
        self._record = []

    def stop_record(self) -> list[Delivery]:
        """What was delivered since `keep_record`; nothing is remembered any more."""
        record, self._record = self._record or [], None
        return record

    def release(self, delivered: list[Delivery]) -> None:
        """Deliver what was held back, less `delivered` by the old connection, and hold back no more.

        Messages are compared whole, as two servers of a cluster may differ in their order. Requests differ
        in the subject for their reply; only of two equal messages without one, sent within the moment of
        the move, one may be dropped.
        """
        held, self._held = self._held or [], None
        twice = Counter(delivered)
        for delivery in held:
            if twice[delivery]:
                twice[delivery] -= 1
            else:
                self.listener.deliver(*delivery)
