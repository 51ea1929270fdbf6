"""What every `MessageBus` promises, held against the one in memory and the one on a real NATS server."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import anyio
import pytest
from anyio.lowlevel import checkpoint

from localai_worker.adapters.memory.bus import InMemoryBroker, InMemoryMessageBus
from localai_worker.adapters.nats.bus import NatsMessageBus
from localai_worker.domain.errors import (
    BusUnavailable,
    NoResponders,
    PayloadTooLarge,
    RequestTimedOut,
    SubscriptionDenied,
)
from localai_worker.domain.ports.bus import BusMessage, MessageBus, Subscription
from tests.servers import NatsServer

MIB = 1024 * 1024
PATIENCE_S = 20.0  # far more than anything here takes


class Server(Protocol):
    """Something buses connect to, that can go away and come back."""

    def new_bus(self) -> MessageBus: ...
    def stop(self) -> None: ...
    def start(self) -> None: ...


class InMemoryServer:
    def __init__(self) -> None:
        self.broker = InMemoryBroker(denied_subjects=["secret.>"])

    def new_bus(self) -> MessageBus:
        return InMemoryMessageBus(self.broker)

    def stop(self) -> None:
        self.broker.offline = True

    def start(self) -> None:
        self.broker.offline = False


class RealServer:
    def __init__(self, process: NatsServer) -> None:
        self.process = process

    def new_bus(self) -> MessageBus:
        return NatsMessageBus(self.process.url, client_name="contract", retry_s=0.05)

    def stop(self) -> None:
        self.process.stop()

    def start(self) -> None:
        self.process.start()


@pytest.fixture(params=["memory", "nats"])
def server(request: pytest.FixtureRequest) -> Server:
    if request.param == "memory":
        return InMemoryServer()
    process: NatsServer = request.getfixturevalue("nats_server")
    process.start()
    return RealServer(process)


Connect = Callable[[], Awaitable[MessageBus]]


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Connect]:
    """Makes opened buses, which are closed in the end."""
    buses: list[MessageBus] = []

    async def connect() -> MessageBus:
        bus = server.new_bus()
        buses.append(bus)
        with anyio.fail_after(PATIENCE_S):
            await bus.open()
        return bus

    yield connect
    server.start()
    for bus in buses:
        await bus.close()


@pytest.fixture
async def bus(connect: Connect) -> MessageBus:
    return await connect()


async def read(subscription: Subscription, count: int) -> list[BusMessage]:
    messages: list[BusMessage] = []
    with anyio.fail_after(PATIENCE_S):
        async for message in subscription:
            messages.append(message)
            if len(messages) == count:
                break
    return messages


async def payloads(subscription: Subscription, count: int) -> list[bytes]:
    return [message.payload for message in await read(subscription, count)]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await checkpoint()


async def echo(bus: MessageBus, subscription: Subscription) -> None:
    async for message in subscription:
        await bus.publish(message.reply_to, b"re: " + message.payload)


async def test_a_bus_is_connected_from_open_to_close(server: Server) -> None:
    bus = server.new_bus()
    seen = [bus.connected]
    await bus.open()
    seen.append(bus.connected)
    await bus.close()
    seen.append(bus.connected)
    assert seen == [False, True, False]


async def test_a_message_arrives_as_it_was_sent(connect: Connect) -> None:
    sender, receiver = await connect(), await connect()
    subscription = await receiver.subscribe("nodes.n1.stop")
    await sender.publish("nodes.n1.stop", bytes(range(256)))
    assert await read(subscription, 1) == [BusMessage("nodes.n1.stop", bytes(range(256)), "")]


async def test_an_empty_message_arrives(bus: MessageBus) -> None:
    subscription = await bus.subscribe("a")
    await bus.publish("a", b"")
    assert await payloads(subscription, 1) == [b""]


@pytest.mark.parametrize(
    ("pattern", "subject", "heard"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.B", False),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*", "a", False),
        ("*.b", "a.b", True),
        ("*.*.c", "a.b.c", True),
        ("a.*.c", "a.b.d", False),
        ("*", "a", True),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.>", "b.a", False),
        (">", "a", True),
        ("*.>", "a.b.c", True),
        ("*.>", "a", False),
    ],
)
async def test_subjects_follow_the_rules_of_nats(
    bus: MessageBus, pattern: str, subject: str, heard: bool
) -> None:
    subscription = await bus.subscribe(pattern)
    marker = await bus.subscribe("marker")
    await bus.publish(subject, b"")
    await bus.publish("marker", b"")
    await read(marker, 1)  # so what was sent before it has come
    if heard:
        assert (await read(subscription, 1))[0].subject == subject
    else:
        await subscription.unsubscribe()
        assert [message async for message in subscription] == []


async def test_messages_come_in_the_order_they_were_sent(connect: Connect) -> None:
    sender, receiver = await connect(), await connect()
    subscription = await receiver.subscribe("count.*")
    sent = [str(number).encode() for number in range(2000)]
    for number, payload in enumerate(sent):
        await sender.publish(f"count.{number % 3}", payload)
    assert await payloads(subscription, len(sent)) == sent


async def test_every_subscription_gets_its_own_copy(connect: Connect) -> None:
    first, second = await connect(), await connect()
    subscriptions = [await first.subscribe("a"), await first.subscribe("*"), await second.subscribe("a")]
    await first.publish("a", b"news")
    assert [await payloads(subscription, 1) for subscription in subscriptions] == [[b"news"]] * 3


async def test_who_comes_late_never_sees_the_message(bus: MessageBus) -> None:
    early = await bus.subscribe("a")
    await bus.publish("a", b"first")
    await read(early, 1)
    late = await bus.subscribe("a")
    await bus.publish("a", b"second")
    assert await payloads(late, 1) == [b"second"]


async def test_after_unsubscribe_nothing_comes_and_iteration_ends(bus: MessageBus) -> None:
    gone, stays = await bus.subscribe("a"), await bus.subscribe("a")
    await gone.unsubscribe()
    await gone.unsubscribe()
    await bus.publish("a", b"unheard")
    await read(stays, 1)
    assert [message async for message in gone] == []


async def test_unsubscribe_ends_a_waiting_reader(bus: MessageBus) -> None:
    subscription = await bus.subscribe("a")
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, subscription, 1)
            await checkpoint()
            await subscription.unsubscribe()


async def test_close_ends_every_subscription_and_may_be_repeated(connect: Connect) -> None:
    bus = await connect()
    first, second = await bus.subscribe("a"), await bus.subscribe(">")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, first, 1)
        await checkpoint()
        await bus.close()
    await bus.close()
    assert [message async for message in second] == []
    assert [message async for message in second] == []


async def test_close_sends_what_is_queued(connect: Connect) -> None:
    sender, receiver = await connect(), await connect()
    subscription = await receiver.subscribe("a")
    for number in range(500):
        await sender.publish("a", str(number).encode())
    await sender.close()
    assert await payloads(subscription, 500) == [str(number).encode() for number in range(500)]


async def test_a_closed_bus_takes_nothing(connect: Connect) -> None:
    bus = await connect()
    await bus.close()
    for attempt in (
        bus.publish("a", b""),
        bus.subscribe("a"),
        bus.request("a", b"", timeout_s=1),
        bus.open(),
    ):
        with pytest.raises(BusUnavailable, match="closed"):
            await attempt


async def test_a_bus_that_was_never_opened_takes_nothing(server: Server) -> None:
    bus = server.new_bus()
    for attempt in (bus.publish("a", b""), bus.subscribe("a"), bus.request("a", b"", timeout_s=1)):
        with pytest.raises(BusUnavailable, match="never opened"):
            await attempt
    await bus.close()


async def test_a_bus_is_opened_once(bus: MessageBus) -> None:
    with pytest.raises(RuntimeError, match="before"):
        await bus.open()
    assert bus.connected


async def test_a_request_gets_its_reply(connect: Connect) -> None:
    asking, answering = await connect(), await connect()
    subscription = await answering.subscribe("echo.*")
    replies: dict[int, bytes] = {}

    async def ask(number: int) -> None:
        replies[number] = await asking.request("echo.it", str(number).encode(), timeout_s=PATIENCE_S)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(echo, answering, subscription)
        async with anyio.create_task_group() as requests:
            for number in range(50):
                requests.start_soon(ask, number)
        await subscription.unsubscribe()
    assert replies == {number: f"re: {number}".encode() for number in range(50)}


async def test_the_first_reply_counts(connect: Connect) -> None:
    asking, answering = await connect(), await connect()
    subscription = await answering.subscribe("q")

    async def answer_twice() -> None:
        async for message in subscription:
            await answering.publish(message.reply_to, b"first")
            await answering.publish(message.reply_to, b"second")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer_twice)
        for _ in range(3):
            assert await asking.request("q", b"", timeout_s=PATIENCE_S) == b"first"
        await subscription.unsubscribe()


async def test_a_request_nobody_listens_to_fails_at_once(bus: MessageBus) -> None:
    with pytest.raises(NoResponders) as caught:
        await bus.request("nodes.gone.backend.list", b"{}", timeout_s=PATIENCE_S)
    assert caught.value.subject == "nodes.gone.backend.list"


async def test_a_request_without_a_reply_times_out(bus: MessageBus) -> None:
    subscription = await bus.subscribe("silent")
    with pytest.raises(RequestTimedOut) as caught:
        await bus.request("silent", b"?", timeout_s=0.05)
    assert (caught.value.subject, caught.value.timeout_s) == ("silent", 0.05)
    assert await payloads(subscription, 1) == [b"?"]


async def test_a_late_reply_disturbs_nobody(bus: MessageBus) -> None:
    subscription = await bus.subscribe("slow")
    with pytest.raises(RequestTimedOut):
        await bus.request("slow", b"", timeout_s=0.01)
    (request,) = await read(subscription, 1)
    await bus.publish(request.reply_to, b"too late")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(echo, bus, subscription)
        assert await bus.request("slow", b"again", timeout_s=PATIENCE_S) == b"re: again"
        await subscription.unsubscribe()


async def test_closing_fails_the_requests_that_wait(connect: Connect) -> None:
    asking, answering = await connect(), await connect()
    subscription = await answering.subscribe("silent")
    failures: list[BusUnavailable] = []

    async def ask() -> None:
        try:
            await asking.request("silent", b"", timeout_s=PATIENCE_S)
        except BusUnavailable as error:
            failures.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await read(subscription, 1)
        await asking.close()
    assert len(failures) == 1


async def test_the_largest_payload_passes_and_one_byte_more_does_not(bus: MessageBus) -> None:
    assert bus.max_payload_bytes == MIB
    subscription = await bus.subscribe("big")
    with pytest.raises(PayloadTooLarge) as caught:
        await bus.publish("big", bytes(MIB + 1))
    assert (caught.value.subject, caught.value.size_bytes, caught.value.limit_bytes) == ("big", MIB + 1, MIB)
    with pytest.raises(PayloadTooLarge):
        await bus.request("big", bytes(MIB + 1), timeout_s=1)
    await bus.publish("big", bytes(MIB))
    assert await payloads(subscription, 1) == [bytes(MIB)]
    assert bus.connected


async def test_a_denied_subscription_names_its_subject(bus: MessageBus) -> None:
    """N-B27: denials are told per subject; an earlier one hides nothing and spoils nothing."""
    with pytest.raises(SubscriptionDenied) as caught:
        await bus.subscribe("secret.Nodes.N1")
    assert caught.value.subject == "secret.Nodes.N1"
    assert "secret.Nodes.N1" in str(caught.value)
    allowed = await bus.subscribe("nodes.n1.stop")
    with pytest.raises(SubscriptionDenied):
        await bus.subscribe("secret.Nodes.N1")
    await bus.publish("nodes.n1.stop", b"heard")
    assert await payloads(allowed, 1) == [b"heard"]


@pytest.mark.parametrize(
    "subject", ["", " ", "a b", "a\r\nPUB x 0", ".", "a..b", "a.", "a.>.b", "a*", "a.b>", "\udc80"]
)
async def test_what_is_no_subject_cannot_be_subscribed_to(bus: MessageBus, subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        await bus.subscribe(subject)
    assert bus.connected


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB x 0", "\udc80"])
async def test_what_is_no_subject_cannot_be_sent_to(bus: MessageBus, subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        await bus.publish(subject, b"")
    with pytest.raises(ValueError, match="subject"):
        await bus.request(subject, b"", timeout_s=1)
    assert bus.connected


async def test_an_odd_reply_subject_from_the_wire_is_no_bug(bus: MessageBus) -> None:
    for subject in ("a..b", ".", "a.", "*.b", ">"):
        await bus.publish(subject, b"")
    assert bus.connected


async def test_subscriptions_survive_a_restart_of_the_server(server: Server, connect: Connect) -> None:
    sender, receiver = await connect(), await connect()
    subscriptions = [await receiver.subscribe("a"), await receiver.subscribe("b.*")]
    gone = await receiver.subscribe("a")
    server.stop()
    await until(lambda: not sender.connected and not receiver.connected)
    await gone.unsubscribe()
    server.start()
    await until(lambda: sender.connected and receiver.connected)
    await sender.publish("a", b"one")
    await sender.publish("b.c", b"two")
    assert [await payloads(subscription, 1) for subscription in subscriptions] == [[b"one"], [b"two"]]
    assert [message async for message in gone] == []


async def test_a_disconnected_bus_sends_later_and_listens_later(server: Server, bus: MessageBus) -> None:
    server.stop()
    await until(lambda: not bus.connected)
    subscription = await bus.subscribe("a")
    for number in range(10):
        await bus.publish("a", str(number).encode())
    server.start()
    assert await payloads(subscription, 10) == [str(number).encode() for number in range(10)]


async def test_a_request_made_while_disconnected_is_answered_later(server: Server, bus: MessageBus) -> None:
    subscription = await bus.subscribe("echo")
    server.stop()
    await until(lambda: not bus.connected)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(echo, bus, subscription)

        async def start() -> None:
            await anyio.wait_all_tasks_blocked()
            server.start()

        tasks.start_soon(start)
        assert await bus.request("echo", b"?", timeout_s=PATIENCE_S) == b"re: ?"
        await subscription.unsubscribe()


async def test_a_request_survives_a_restart_before_its_reply(server: Server, connect: Connect) -> None:
    asking, answering = await connect(), await connect()
    subscription = await answering.subscribe("install")
    replies: list[bytes] = []

    async def ask() -> None:
        replies.append(await asking.request("install", b"", timeout_s=PATIENCE_S))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        (request,) = await read(subscription, 1)
        server.stop()
        await until(lambda: not asking.connected and not answering.connected)
        server.start()
        await until(lambda: asking.connected and answering.connected)
        await answering.publish(request.reply_to, b"installed")
    assert replies == [b"installed"]


async def test_a_full_buffer_refuses_more_while_disconnected(server: Server, bus: MessageBus) -> None:
    server.stop()
    await until(lambda: not bus.connected)
    for _ in range(7):
        await bus.publish("a", bytes(MIB))
    await bus.publish("a", bytes(MIB - 1000))
    with pytest.raises(BusUnavailable) as caught:
        await bus.publish("a", bytes(MIB))
    assert caught.value.retrying
    server.start()
    await until(lambda: bus.connected)
    await bus.publish("a", bytes(MIB))


async def test_open_waits_for_a_server_that_starts_later(server: Server) -> None:
    server.stop()
    bus = server.new_bus()
    opened: list[bool] = []

    async def open_and_tell() -> None:
        await bus.open()
        opened.append(bus.connected)

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_and_tell)
            await anyio.wait_all_tasks_blocked()
            assert opened == []
            server.start()
    assert opened == [True]
    await bus.close()


async def test_an_open_that_was_given_up_can_be_repeated(server: Server) -> None:
    server.stop()
    bus = server.new_bus()
    with anyio.move_on_after(0.01) as scope:
        await bus.open()
    assert scope.cancelled_caught
    with pytest.raises(BusUnavailable, match="never opened"):
        await bus.publish("a", b"")
    server.start()
    await bus.open()
    assert bus.connected
    await bus.close()


async def test_closing_ends_an_open_that_still_waits(server: Server) -> None:
    server.stop()
    bus = server.new_bus()
    failures: list[BusUnavailable] = []

    async def open_and_fail() -> None:
        try:
            await bus.open()
        except BusUnavailable as error:
            failures.append(error)

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_and_fail)
            await anyio.wait_all_tasks_blocked()
            await bus.close()
    assert len(failures) == 1
    server.start()
