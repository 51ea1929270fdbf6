"""The bus of the fleet: a broker that tells who was asked, and on bad days loses and delays messages."""

import asyncio
from collections.abc import Callable
from random import Random

import anyio

from ....adapters.memory.bus import InMemoryBroker, InMemoryMessageBus
from ....domain.ports.bus import BusMessage

Asked = Callable[[InMemoryMessageBus, BusMessage], None]


class FleetBroker(InMemoryBroker):
    """`asked` hears of every request that reaches a client which is not the frontend.

    While `loss` (a share) or `delay_s` (at most) are above 0, messages go missing or come late. Core NATS
    delivers at most once and keeps the order of one subject; so does this. It never delivers twice: a command
    that comes twice was sent twice (the fault `echo` does that).
    """

    def __init__(self, random: Random, asked: Asked) -> None:
        super().__init__()
        self.loss = 0.0
        self.delay_s = 0.0
        self.lost = 0
        self._random = random
        self._asked = asked
        self._last_s: dict[str, float] = {}

    def route(self, message: BusMessage) -> None:
        if not (self.loss or self.delay_s or self._last_s):
            self._deliver(message)
            return
        if self.loss and self._random.random() < self.loss:
            self.lost += 1
            return
        now_s = anyio.current_time()
        due_s = max(now_s + self.delay_s * self._random.random(), self._last_s.get(message.subject, 0.0))
        self._last_s[message.subject] = due_s
        asyncio.get_running_loop().call_at(due_s, self._late, message)

    def calm(self) -> None:
        """Lose and delay nothing more; what is under way still comes in its order."""
        self.loss = self.delay_s = 0.0
        latest_s = max(self._last_s.values(), default=0.0)
        asyncio.get_running_loop().call_at(latest_s, self._forget_order)

    def _forget_order(self) -> None:
        if not (self.loss or self.delay_s):
            self._last_s.clear()

    def _late(self, message: BusMessage) -> None:
        if not self.offline:
            self._deliver(message)

    def _deliver(self, message: BusMessage) -> None:
        if message.reply_to:
            for subscription in self._exact.get(message.subject, ()):
                if subscription.bus.connected:
                    self._asked(subscription.bus, message)
        super().route(message)
