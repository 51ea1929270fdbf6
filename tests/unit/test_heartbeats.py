"""Heartbeats against the in-memory frontend, in virtual time."""

import logging
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.frontend import InMemoryFrontend
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.enrol import Enrolment
from localai_worker.domain.heartbeats import Heartbeats
from localai_worker.domain.node import NodeId
from localai_worker.domain.ports.hardware import Gpu, Hardware, Memory
from tests.enrolling import BUSY, GIB, H100, RAM, SILENT, SIZELESS, TOKEN, Node, UnreadableDisk, no_move


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


async def beat(node: Node, seconds: float) -> None:
    """Register and beat for some time."""
    enrolment = node.enrolment()
    await enrolment.register()
    with anyio.move_on_after(seconds):
        await Heartbeats(enrolment).beat_forever(no_move)


async def test_the_node_beats_at_once_and_then_at_every_interval() -> None:
    """H-21: upstream lets a whole interval pass first."""
    node = Node()
    await beat(node, 35)
    assert node.came_at_s("heartbeat") == pytest.approx([0, 10, 20, 30])


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (lambda node: node.frontend.answer_next(404), "does not know node"),
        (lambda node: node.frontend.answer_next(401), "heartbeat refused"),
        (lambda node: node.frontend.answer_next(500), "heartbeat missed"),
    ],
)
async def test_a_beat_that_fails_is_logged_and_the_next_one_sent(
    fault: Callable[[Node], None], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """H-18: upstream never looks at the answer."""
    node = Node()
    enrolment = node.enrolment()
    await enrolment.register()
    fault(node)
    with anyio.move_on_after(15):
        await Heartbeats(enrolment).beat_forever(no_move)
    assert text in caplog.text
    assert [call.status for call in node.calls("heartbeat")][1:] == [200]


async def test_a_frontend_that_has_forgotten_the_node_is_told_of_it_again() -> None:
    """H-18, N-B23, S-K02: upstream's worker beats into the void until somebody restarts it."""
    node = Node()
    enrolment = node.enrolment()
    old = await enrolment.register()
    moves: list[tuple[NodeId, NodeId]] = []

    async def moved(old: NodeId, new: NodeId) -> None:
        moves.append((old, new))

    node.frontend.admin_delete(old)
    with anyio.move_on_after(45):
        await Heartbeats(enrolment).beat_forever(moved)
    assert enrolment.node_id != old
    assert moves == [(old, enrolment.node_id)]
    assert node.came_at_s("register") == pytest.approx([0, 20])
    assert [call.status for call in node.calls("heartbeat")] == [404, 404, 404, 200, 200, 200]


async def test_one_or_two_404s_are_a_hiccup_of_the_frontends_database() -> None:
    """H-18: registering again drops the frontend's model rows, so it is not done lightly."""
    node = Node()
    enrolment = node.enrolment()
    await enrolment.register()
    node.frontend.answer_next(404, times=2)
    with anyio.move_on_after(25):
        await Heartbeats(enrolment).beat_forever(no_move)
    node.frontend.answer_next(404, times=2)
    with anyio.move_on_after(25):
        await Heartbeats(enrolment).beat_forever(no_move)
    assert len(node.calls("register")) == 1


async def test_a_node_that_gets_its_old_id_back_has_not_moved() -> None:
    """H-18: the id follows the name, so a frontend that kept the row gives the same one."""
    node = Node()
    enrolment = node.enrolment()
    await enrolment.register()
    node.frontend.answer_next(404, times=3)
    with anyio.move_on_after(25):
        await Heartbeats(enrolment).beat_forever(no_move)
    assert len(node.calls("register")) == 2


async def test_registering_again_is_tried_for_as_long_as_it_takes() -> None:
    """H-18: a worker with running backends does not end because its frontend is away, or refuses it."""
    node = Node()
    enrolment = node.enrolment()
    old = await enrolment.register()
    node.frontend.admin_delete(old)
    moves: list[NodeId] = []

    async def moved(_old: NodeId, new: NodeId) -> None:
        moves.append(new)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Heartbeats(enrolment).beat_forever, moved)
        await anyio.sleep(15)
        node.frontend.answer_next(404)  # the third
        node.frontend.answer_next(401, times=3)
        node.frontend.answer_next(503, times=20)
        await anyio.sleep(3600)
        tasks.cancel_scope.cancel()
    assert moves == [enrolment.node_id]


async def test_a_forgotten_node_registers_as_it_is_now_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """H-18, S-K02: the figures of the start would have the frontend plan with memory that is taken."""
    node = Node()
    node.hardware.reading = Hardware(gpus=(H100,), ram=RAM)
    enrolment = node.enrolment()
    old = await enrolment.register()
    node.hardware.reading = Hardware(gpus=(SILENT, H100), ram=Memory(64 * GIB, 7))
    node.frontend.answer_next(404, times=3)
    with anyio.move_on_after(25):
        await Heartbeats(enrolment).beat_forever(no_move)
    body = node.sent("register")
    assert (body["total_vram"], body["available_vram"]) == (96 * GIB, 60 * GIB)
    assert body["available_ram"] == 7
    assert f"the frontend has forgotten node {old}: registering again" in caplog.text
    assert "has dropped its rows of the models" in caplog.text


@pytest.mark.parametrize("between", [200, 401, 500])
async def test_any_other_answer_than_404_begins_the_count_anew(between: int) -> None:
    """H-18: only three in a row mean that the node is forgotten."""
    node = Node()
    enrolment = node.enrolment()
    await enrolment.register()
    for status in (404, 404, between, 404, 404):
        node.frontend.answer_next(status)
    with anyio.move_on_after(55):
        await Heartbeats(enrolment).beat_forever(no_move)
    assert [call.status for call in node.calls("heartbeat")] == [404, 404, between, 404, 404, 200]
    assert len(node.calls("register")) == 1


async def test_a_token_that_became_wrong_is_told_at_once_then_every_ten_minutes_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """H-18: upstream's worker never notices; every ten seconds would hide everything else."""
    node = Node()
    enrolment = node.enrolment()
    await enrolment.register()
    node.frontend.token = "changed"
    caplog.set_level(logging.INFO)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Heartbeats(enrolment).beat_forever, no_move)
        await anyio.sleep(3595)
        errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        node.frontend.token = TOKEN
        await anyio.sleep(60)
        tasks.cancel_scope.cancel()
    assert len(errors) == 6
    assert all("check LOCALAI_REGISTRATION_TOKEN" in error for error in errors)
    assert "heartbeats work again after 360 failure(s), 3600 s" in caplog.text
    assert len(node.calls("register")) == 1


async def test_beats_go_on_while_the_frontend_is_away() -> None:
    node = Node()
    enrolment = node.enrolment()
    await enrolment.register()
    node.frontend.offline = True
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Heartbeats(enrolment).beat_forever, no_move)
        await anyio.sleep(45)
        node.frontend.offline = False
        await anyio.sleep(10)
        tasks.cancel_scope.cancel()
    assert [call.status for call in node.calls("heartbeat")] == [0] * 5 + [200]


async def test_every_beat_tells_the_readings_of_the_moment() -> None:
    """S-W12"""
    node = Node()
    node.hardware.reading = Hardware(gpus=(H100,), ram=RAM)
    enrolment = node.enrolment()
    await enrolment.register()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Heartbeats(enrolment).beat_forever, no_move)
        await anyio.sleep(5)
        node.hardware.reading = Hardware(gpus=(SILENT, H100), ram=Memory(64 * GIB, 7))
        node.filesystem.put(Path("/models/x"), bytes(1000))
        await anyio.sleep(10)
        tasks.cancel_scope.cancel()
    assert node.sent("heartbeat") == {
        "available_vram": 60 * GIB,
        "available_ram": 7,
        "total_disk": GIB,
        "available_disk": GIB - 1000,
    }
    assert (node.row.available_vram, node.row.available_ram) == (60 * GIB, 7)


@pytest.mark.parametrize("gpus", [(), (SILENT,), (SIZELESS,)])
async def test_free_memory_that_is_unknown_is_left_out_of_a_beat(gpus: tuple[Gpu, ...]) -> None:
    """S-B23: a zero would tell the frontend that the node is full."""
    node = Node(filesystem=UnreadableDisk())
    node.hardware.reading = Hardware(gpus=gpus)
    await beat(node, 1)
    assert node.sent("heartbeat") == {}


async def test_a_full_disk_is_told() -> None:
    node = Node(filesystem=InMemoryFileSystem(capacity_bytes=10))
    node.filesystem.put(Path("/models/x"), bytes(10))
    await beat(node, 1)
    assert node.sent("heartbeat")["available_disk"] == 0


@pytest.mark.parametrize("interval_s", [0, -1, float("nan")])
def test_what_is_no_interval_is_refused(interval_s: float) -> None:
    """H-21: it would flood the frontend, or never beat."""
    with pytest.raises(ValueError, match="longer than 0 s"):
        Heartbeats(Node().enrolment(), interval_s=interval_s)


# Approval.


async def pending(node: Node) -> Enrolment:
    node.frontend.auto_approve = False
    enrolment = node.enrolment()
    await enrolment.register()
    return enrolment


async def test_an_approved_node_learns_of_it_within_half_a_minute() -> None:
    """H-17, H-3a932a980: nobody tells it; without rows a registration does no harm and tells."""
    node = Node()
    enrolment = await pending(node)
    moves: list[tuple[NodeId, NodeId]] = []

    async def moved(old: NodeId, new: NodeId) -> None:
        moves.append((old, new))

    seen = [enrolment.worries]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Heartbeats(enrolment).beat_forever, moved)
        await anyio.sleep(95)
        assert node.row.status == "pending"
        node.frontend.approve(node.row.id)
        await anyio.sleep(30)
        tasks.cancel_scope.cancel()
    seen.append(enrolment.worries)
    assert seen == [("waiting for an admin's approval",), ()]
    assert node.came_at_s("register") == pytest.approx([0, 30, 60, 90, 120])
    assert moves == [(enrolment.node_id, enrolment.node_id)] * 4


async def test_an_approved_node_drains_when_it_leaves() -> None:
    """H-17: one that still thought it was pending would leave without a word."""
    node = Node()
    enrolment = await pending(node)
    node.frontend.approve(node.row.id)
    with anyio.move_on_after(35):
        await Heartbeats(enrolment).beat_forever(no_move)
    await enrolment.drain()
    assert node.row.status == "draining"


async def test_rows_tell_of_an_approval_and_are_not_dropped() -> None:
    """H-17: a registration would drop what was loaded since."""
    node = Node()
    enrolment = await pending(node)
    node.frontend.approve(node.row.id)
    node.frontend.put_model(node.row.id, BUSY)
    with anyio.move_on_after(35):
        await Heartbeats(enrolment).beat_forever(no_move)
    assert enrolment.worries == ()
    assert len(node.calls("register")) == 1
    assert node.row.models
    kept = await node.identities.load()
    assert kept is not None
    assert kept.status == "healthy"


async def test_a_frontend_that_hides_its_rows_is_not_registered_with_again() -> None:
    """H-0ab632b6b: what it hides might be dropped."""
    node = Node(InMemoryFrontend(token=TOKEN, generation="seed", api_auth=True))
    enrolment = await pending(node)
    with anyio.move_on_after(100):
        await Heartbeats(enrolment).beat_forever(no_move)
    assert len(node.calls("register")) == 1


async def test_asking_for_an_approval_in_vain_changes_nothing() -> None:
    node = Node()
    enrolment = await pending(node)
    node.frontend.answer_next(200)  # the first beat
    with anyio.move_on_after(35):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Heartbeats(enrolment).beat_forever, no_move)
            await anyio.sleep(29)
            for status in (200, 200, 503):  # a beat, the rows (no list), and the registration
                node.frontend.answer_next(status)
    assert enrolment.worries == ("waiting for an admin's approval",)


async def test_a_pending_node_that_beats_stays_pending() -> None:
    """S-K03: one that fell silent would come back approved."""
    node = Node()
    enrolment = await pending(node)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Heartbeats(enrolment).beat_forever, no_move)
        for _ in range(40):
            await anyio.sleep(15)
            node.frontend.monitor(node.frontend.clock.now())
            assert node.row.status == "pending"
        tasks.cancel_scope.cancel()


# What is wrong, for those who ask.


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "the frontend refuses the registration token: check LOCALAI_REGISTRATION_TOKEN"),
        (403, "the frontend refuses the registration token: check LOCALAI_REGISTRATION_TOKEN"),
        (404, "heartbeats fail: the frontend does not know node"),
        (503, "heartbeats fail: frontend memory is unavailable"),
    ],
)
async def test_a_beat_that_fails_is_a_worry_until_one_works(status: int, text: str) -> None:
    """H-18: a refused token is a state that shows, not a line that scrolls away."""
    node = Node()
    enrolment = node.enrolment()
    await enrolment.register()
    beats = Heartbeats(enrolment)
    node.frontend.answer_next(200)
    node.frontend.answer_next(status)
    worries: list[tuple[str, ...]] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beats.beat_forever, no_move)
        for _ in range(3):
            await anyio.sleep(5)
            worries.append(beats.worries)
            await anyio.sleep(5)
        tasks.cancel_scope.cancel()
    (trouble,) = worries.pop(1)
    assert trouble.startswith(text)
    assert worries == [(), ()]


def test_a_node_that_never_registered_says_so() -> None:
    assert Node().enrolment().worries == ("not registered with the frontend yet",)


async def test_pauses_are_spread_so_that_a_fleet_does_not_call_in_one_beat() -> None:
    """H-21: upstream's workers started together beat together."""
    node = Node()
    enrolment = node.enrolment()
    enrolment.spread = lambda pause_s: pause_s * 1.1
    node.frontend.answer_next(503, times=2)
    await enrolment.register()
    with anyio.move_on_after(30):
        await Heartbeats(enrolment).beat_forever(no_move)
    assert node.came_at_s("register") == pytest.approx([0, 2.2, 6.6])
    assert node.came_at_s("heartbeat") == pytest.approx([6.6, 17.6, 28.6])
