"""Enrolment against the in-memory frontend, in virtual time."""

import logging
from pathlib import Path
from typing import Any

import anyio
import pytest

from localai_worker.adapters.memory.frontend import InMemoryFrontend
from localai_worker.adapters.memory.frontend_nodes import Generation
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.enrol import Enrolment, NotRegistered
from localai_worker.domain.errors import FrontendRefused
from localai_worker.domain.messages.node_status import LoadedModel
from localai_worker.domain.ports.hardware import Hardware
from tests.enrolling import BUSY, GIB, H100, RAM, SILENT, TOKEN, Node, UnreadableDisk


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


# Registering.


async def test_a_node_registers_and_knows_its_id() -> None:
    node = Node()
    enrolment = node.enrolment()
    node_id = await enrolment.register()
    assert node_id == enrolment.node_id == node.row.id
    assert node.row.status == "healthy"


async def test_registration_is_tried_ten_times_with_growing_pauses() -> None:
    node = Node()
    node.frontend.offline = True
    with pytest.raises(NotRegistered, match=r"after 10 attempt\(s\): .* set offline") as caught:
        await node.enrolment().register()
    assert caught.value.attempts == 10
    pauses = [2, 4, 8, 16, 30, 30, 30, 30, 30]
    assert node.came_at_s("register") == pytest.approx([sum(pauses[:at]) for at in range(10)])
    assert anyio.current_time() == pytest.approx(180)


@pytest.mark.parametrize("status", [301, 404, 409, 429, 500, 503])
async def test_a_frontend_that_recovers_gets_the_node_at_the_next_attempt(status: int) -> None:
    node = Node()
    node.frontend.answer_next(status, times=3)
    await node.enrolment().register()
    assert [call.status for call in node.calls("register")] == [status] * 3 + [201]
    assert anyio.current_time() == pytest.approx(14)


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_refusal_that_no_waiting_mends_ends_at_once(status: int) -> None:
    node = Node()
    node.frontend.answer_next(status)
    with pytest.raises(NotRegistered) as caught:
        await node.enrolment().register()
    assert caught.value.attempts == 1
    assert isinstance(caught.value.last, FrontendRefused)
    assert anyio.current_time() == 0


async def test_a_wrong_token_is_told_with_its_remedy() -> None:
    node = Node(token="wrong")
    with pytest.raises(NotRegistered, match="invalid registration token; check LOCALAI_REGISTRATION_TOKEN"):
        await node.enrolment().register()


async def test_the_hardware_is_read_anew_for_every_attempt() -> None:
    node = Node()
    node.frontend.offline = True

    async def recover() -> None:
        await anyio.sleep(1)
        node.hardware.reading = Hardware(gpus=(H100,), ram=RAM)
        node.frontend.offline = False

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recover)
        await node.enrolment().register()
    assert node.row.total_vram == 80 * GIB


async def test_a_node_that_waits_for_approval_says_so(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    node.frontend.auto_approve = False
    await node.enrolment().register()
    assert "waits for an admin's approval" in caplog.text


async def test_failed_attempts_and_failed_probes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    node.hardware.reading = Hardware(warnings=("nvidia: driver not loaded",))
    node.frontend.answer_next(503)
    await node.enrolment().register()
    assert "attempt=1/10 retry_in_s=2" in caplog.text
    assert "nvidia: driver not loaded" in caplog.text
    assert TOKEN not in caplog.text


# What a registration says.


async def registration(node: Node) -> dict[str, Any]:
    await node.enrolment().register()
    return node.sent("register")


async def test_a_gpu_node_tells_its_memory_and_what_it_can_run() -> None:
    """G-1.5.13, S-W12: RAM is told next to VRAM."""
    node = Node()
    node.hardware.reading = Hardware(gpus=(H100, H100), ram=RAM)
    body = await registration(node)
    assert (body["total_vram"], body["available_vram"]) == (160 * GIB, 120 * GIB)
    assert (body["total_ram"], body["available_ram"]) == (64 * GIB, 48 * GIB)
    assert (body["gpu_vendor"], body["gpu_compute_capability"]) == ("nvidia", "9.0")
    assert body["capability"] == "nvidia-gpu"


async def test_a_node_without_gpu_says_so() -> None:
    body = await registration(Node())
    assert (body["total_vram"], body["available_vram"], body["gpu_vendor"]) == (0, 0, "")
    assert (body["gpu_compute_capability"], body["capability"]) == ("", "no-gpu")
    assert body["total_ram"] == 64 * GIB


async def test_free_memory_that_is_not_told_is_taken_for_all_of_it_at_registration() -> None:
    node = Node()
    node.hardware.reading = Hardware(gpus=(SILENT,), ram=RAM)
    body = await registration(node)
    assert (body["total_vram"], body["available_vram"]) == (16 * GIB, 16 * GIB)


async def test_ram_and_disk_that_cannot_be_read_are_left_out() -> None:
    node = Node(filesystem=UnreadableDisk())
    node.hardware.reading = Hardware(gpus=(H100,))
    body = await registration(node)
    assert not {"total_ram", "available_ram", "total_disk", "available_disk"} & body.keys()


async def test_the_disk_of_the_models_is_told() -> None:
    node = Node()
    node.filesystem.put(Path("/models/x"), bytes(1000))
    body = await registration(node)
    assert (body["total_disk"], body["available_disk"]) == (GIB, GIB - 1000)


@pytest.mark.parametrize(("configured", "told"), [(3, 3), (1, 1), (0, 1), (-2, 1)])
async def test_the_replica_slots_are_told_as_a_number_and_as_a_label(configured: int, told: int) -> None:
    """S-W10, H-ea1df8945: the operator's own labels and the slots, nothing that the frontend knows itself."""
    node = Node(profile={"max_replicas_per_model": configured, "labels": {"tier": "fast"}})
    body = await registration(node)
    assert body["max_replicas_per_model"] == told
    assert body["labels"] == {"tier": "fast", "node.replica-slots": str(told)}


async def test_the_vram_budget_is_sent_as_written_and_the_memory_raw() -> None:
    """S-W11, H-8cec22c3b"""
    node = Node(profile={"vram_budget": "80%"})
    node.hardware.reading = Hardware(gpus=(H100,), ram=RAM)
    body = await registration(node)
    assert (body["vram_budget"], body["total_vram"]) == ("80%", 80 * GIB)
    assert "vram_budget" not in await registration(Node())


# Leaving.


async def registered(node: Node) -> Enrolment:
    enrolment = node.enrolment()
    await enrolment.register()
    return enrolment


def seed_node() -> Node:
    """A node of a frontend that keeps the rows of a node it drains."""
    generation: Generation = "seed"
    return Node(InMemoryFrontend(token=TOKEN, generation=generation))


async def test_draining_waits_until_nothing_is_in_flight() -> None:
    node = seed_node()
    enrolment = await registered(node)
    node.frontend.put_model(node.row.id, BUSY)

    async def finish() -> None:
        await anyio.sleep(7.5)
        node.frontend.add_in_flight(node.row.id, "qwen", -1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(finish)
        await enrolment.drain()
    assert anyio.current_time() == pytest.approx(8)
    assert node.row.status == "draining"
    assert node.came_at_s("models") == pytest.approx(range(9))


async def test_an_idle_node_is_drained_at_once() -> None:
    node = Node()
    await (await registered(node)).drain()
    assert anyio.current_time() == 0


async def test_draining_is_given_up_after_its_time(caplog: pytest.LogCaptureFixture) -> None:
    node = seed_node()
    enrolment = await registered(node)
    node.frontend.put_model(node.row.id, BUSY)
    await enrolment.drain()
    assert anyio.current_time() == pytest.approx(30)
    assert "still in flight after 30 s" in caplog.text


async def test_in_flight_counts_over_all_models() -> None:
    node = seed_node()
    enrolment = await registered(node)
    node.frontend.put_model(node.row.id, LoadedModel(model_name="idle", in_flight=0))
    node.frontend.put_model(node.row.id, BUSY)
    with anyio.move_on_after(5) as limit:
        await enrolment.drain()
    assert limit.cancelled_caught


@pytest.mark.parametrize("status", [200, 401, 500])
async def test_an_answer_that_is_no_list_is_not_taken_for_nothing_in_flight(status: int) -> None:
    """H-30: upstream reads it as drained and kills what runs."""
    node = seed_node()
    enrolment = await registered(node)
    node.frontend.answer_next(200)  # the drain itself
    node.frontend.answer_next(status, times=3)
    await enrolment.drain()
    assert anyio.current_time() == pytest.approx(3)
    assert [call.status for call in node.calls("models")] == [status] * 3 + [200]


@pytest.mark.parametrize("generation", ["seed", "newer"])
async def test_clients_of_this_node_are_waited_for_whatever_the_frontend_counts(
    generation: Generation,
) -> None:
    """H-30, S-K15: a newer frontend deletes the rows that it drains, and the list is empty at once."""
    node = Node(InMemoryFrontend(token=TOKEN, generation=generation), clients=1)
    enrolment = await registered(node)
    node.frontend.put_model(node.row.id, BUSY)

    async def finish() -> None:
        await anyio.sleep(3.5)
        node.frontend.add_in_flight(node.row.id, "qwen", -1)
        await anyio.sleep(4)
        node.clients = 0

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(finish)
        await enrolment.drain()
    assert anyio.current_time() == pytest.approx(8)


async def test_the_frontends_count_is_waited_for_when_no_client_is_connected_any_more() -> None:
    """H-30: both must agree that nothing is in flight."""
    node = seed_node()
    node.clients = 1
    enrolment = await registered(node)
    node.frontend.put_model(node.row.id, BUSY)

    async def finish() -> None:
        await anyio.sleep(2.5)
        node.clients = 0
        await anyio.sleep(4)
        node.frontend.add_in_flight(node.row.id, "qwen", -1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(finish)
        await enrolment.drain()
    assert anyio.current_time() == pytest.approx(7)


async def test_a_client_that_never_leaves_is_waited_for_until_the_time_is_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """S-K15: an idle connection looks like a request."""
    node = Node(clients=1)
    await (await registered(node)).drain()
    assert anyio.current_time() == pytest.approx(30)
    assert "still in flight after 30 s" in caplog.text


async def test_clients_are_waited_for_when_the_frontend_does_not_take_the_drain() -> None:
    """H-30: another frontend may be in the middle of a request."""
    node = Node(clients=1)
    enrolment = await registered(node)
    node.frontend.offline = True

    async def finish() -> None:
        await anyio.sleep(4.5)
        node.clients = 0

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(finish)
        await enrolment.drain()
    assert anyio.current_time() == pytest.approx(5)
    assert not node.calls("models")


async def test_a_frontend_that_refuses_the_token_for_the_list_is_waited_for() -> None:
    node = seed_node()
    node.frontend.api_auth = True
    enrolment = await registered(node)
    await enrolment.drain()
    assert anyio.current_time() == pytest.approx(30)


async def test_a_frontend_that_hangs_does_not_hold_up_the_drain() -> None:
    node = seed_node()
    enrolment = await registered(node)
    node.frontend.slow_s = 3600
    await enrolment.drain()
    assert anyio.current_time() == pytest.approx(10)
    assert not node.calls("models")


async def test_a_drain_that_is_refused_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    node = seed_node()
    enrolment = await registered(node)
    node.frontend.put_model(node.row.id, BUSY)
    node.frontend.answer_next(500)
    await enrolment.drain()
    assert anyio.current_time() == 0
    assert "stopping without it" in caplog.text


async def test_a_node_that_left_is_not_taken_for_healthy_again() -> None:
    """H-16: deregistered only, a node whose last beat is young would get work for another minute."""
    node = Node()
    enrolment = await registered(node)
    await enrolment.deregister()
    assert [call.endpoint for call in node.calls()] == ["register", "deregister", "drain"]
    for _ in range(8):
        await anyio.sleep(15)
        node.frontend.monitor(node.frontend.clock.now())
        assert node.row.status == "draining"
    await enrolment.register()
    assert node.row.status == "healthy"


async def test_a_pending_node_leaves_without_a_word_and_stays_pending() -> None:
    """H-17"""
    node = Node()
    node.frontend.auto_approve = False
    enrolment = await registered(node)
    await enrolment.drain()
    await enrolment.deregister()
    assert [call.endpoint for call in node.calls()] == ["register"]
    await enrolment.register()
    assert node.row.status == "pending"


async def test_a_node_that_never_registered_leaves_without_a_word() -> None:
    node = Node()
    enrolment = node.enrolment()
    await enrolment.drain()
    await enrolment.deregister()
    assert not node.calls()


async def test_leaving_a_frontend_that_is_away_is_logged_and_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = Node()
    enrolment = await registered(node)
    node.frontend.offline = True
    await enrolment.deregister()
    assert "deregistration failed" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# identity on disk


async def test_who_the_node_is_stays_on_disk_until_it_leaves() -> None:
    node = Node()
    enrolment = node.enrolment()
    node_id = await enrolment.register()
    kept = await node.identities.load()
    assert kept is not None
    assert (kept.node_id, kept.status, kept.frontend) == (node_id, "healthy", "http://frontend:8080")
    node.frontend.offline = True
    await enrolment.drain()
    assert await node.identities.load() is None, "also where nobody hears of the drain"
