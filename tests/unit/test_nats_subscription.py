"""The queue between the connection and a reader that may be slow."""

import logging

import pytest

from localai_worker.adapters.nats import subscription as subscription_module
from localai_worker.adapters.nats.outbox import LIMIT_BYTES, Outbox, Outgoing
from localai_worker.adapters.nats.subscription import NatsSubscription
from localai_worker.domain.ports.bus import BusMessage


async def forget(_: NatsSubscription) -> None:
    """Nobody to tell."""


@pytest.mark.parametrize(("limit", "value"), [("PENDING_MESSAGES", 3), ("PENDING_BYTES", 3)])
async def test_what_a_slow_reader_cannot_take_is_dropped_and_told_once(
    limit: str, value: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(subscription_module, limit, value)
    subscription = NatsSubscription("a", forget)
    for number in range(6):
        subscription.deliver(BusMessage("a", str(number).encode()), no_responders=False)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    reader = aiter(subscription)
    assert [(await anext(reader)).payload for _ in range(3)] == [b"0", b"1", b"2"]
    subscription.deliver(BusMessage("a", b"6"), no_responders=False)
    assert (await anext(reader)).payload == b"6"


async def test_what_came_before_the_end_can_still_be_read_and_nothing_after() -> None:
    subscription = NatsSubscription("a", forget)
    subscription.deliver(BusMessage("a", b"before"), no_responders=False)
    await subscription.unsubscribe()
    subscription.deliver(BusMessage("a", b"after"), no_responders=False)
    assert [message.payload async for message in subscription] == [b"before"]
    assert [message async for message in subscription] == []


def test_the_outbox_holds_8_mib_and_has_room_again_when_some_is_gone() -> None:
    outbox = Outbox()
    half = Outgoing("a", bytes(LIMIT_BYTES // 2 - 1))
    assert outbox.put(half)
    assert outbox.put(half)
    assert not outbox.put(Outgoing("a", b""))
    outbox.drop_first()
    assert outbox.put(Outgoing("a", b"", "reply"))
    assert (len(outbox), outbox.first()) == (2, half)
    outbox.clear()
    assert outbox.put(half)
    assert len(outbox) == 1
