"""What the bus in memory adds to the contract: cutting off one bus alone."""

import anyio
import pytest

from localai_worker.adapters.memory.bus import InMemoryBroker, InMemoryMessageBus
from localai_worker.domain.errors import NoResponders, PayloadTooLarge, RequestTimedOut


async def opened(broker: InMemoryBroker) -> InMemoryMessageBus:
    bus = InMemoryMessageBus(broker)
    await bus.open()
    return bus


async def test_a_bus_that_is_cut_off_misses_what_others_say_and_sends_its_own_later() -> None:
    broker = InMemoryBroker()
    here, there = await opened(broker), await opened(broker)
    heard_here, heard_there = await here.subscribe("a"), await there.subscribe("a")
    there.offline = True
    assert (here.connected, there.connected) == (True, False)
    await here.publish("a", b"missed")
    await there.publish("a", b"late")
    there.offline = False
    await here.publish("a", b"after")
    for bus in (here, there):
        await bus.close()
    assert [message.payload async for message in heard_here] == [b"missed", b"late", b"after"]
    assert [message.payload async for message in heard_there] == [b"late", b"after"]


async def test_nobody_listens_while_the_only_listener_is_cut_off() -> None:
    broker = InMemoryBroker()
    here, there = await opened(broker), await opened(broker)
    await there.subscribe("a")
    there.offline = True
    with pytest.raises(NoResponders):
        await here.request("a", b"", timeout_s=1)


async def test_a_reply_to_who_is_cut_off_is_lost() -> None:
    broker = InMemoryBroker()
    here, there = await opened(broker), await opened(broker)
    subscription = await there.subscribe("a")

    async def answer_into_the_void() -> None:
        async for message in subscription:
            here.offline = True
            await there.publish(message.reply_to, b"lost")
            here.offline = False
            return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer_into_the_void)
        with pytest.raises(RequestTimedOut):
            await here.request("a", b"", timeout_s=0.05)


async def test_a_subject_denied_meanwhile_stays_silent() -> None:
    broker = InMemoryBroker(denied_subjects=["secret.*"])
    bus = await opened(broker)
    broker.offline = True
    silent, loud = await bus.subscribe("secret.a"), await bus.subscribe("public.a")
    broker.offline = False
    await bus.publish("secret.a", b"")
    await bus.publish("public.a", b"")
    await bus.close()
    assert [message async for message in silent] == []
    assert len([message async for message in loud]) == 1


async def test_the_brokers_limit_is_every_bus_limit() -> None:
    bus = await opened(InMemoryBroker(max_payload_bytes=3))
    assert bus.max_payload_bytes == 3
    with pytest.raises(PayloadTooLarge):
        await bus.publish("a", b"1234")
