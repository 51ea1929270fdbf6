"""Progress of installs: what is told, in which order, and how it ends."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.app.commands.progress import ProgressEvents
from localai_worker.app.testing import MemoryNode, memory_node
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.errors import BusUnavailable
from localai_worker.domain.install_progress import InstallStep, Percentage, human_bytes
from localai_worker.domain.messages.backend import (
    BackendInstallReply,
    BackendInstallRequest,
    BackendUpgradeReply,
    BackendUpgradeRequest,
)
from localai_worker.domain.messages.backend_progress import BackendInstallProgress, InstallPhase

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/nats/08_install_progress_event.json").read_text())
OP = "0b7f2c4e-6a57-11f0-9d0a-0242ac120002"
MIB = 1 << 20


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@asynccontextmanager
async def heard(
    node: MemoryNode, op_id: str = OP
) -> AsyncIterator[list[tuple[float, BackendInstallProgress]]]:
    """What is published about the operation, with the time it came."""
    events: list[tuple[float, BackendInstallProgress]] = []
    subscription = await node.bus.subscribe(node.subjects.install_progress(op_id))

    async def listen() -> None:
        async for message in subscription:
            events.append((anyio.current_time(), BackendInstallProgress.from_wire(message.payload)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        yield events
        await subscription.unsubscribe()
        tasks.cancel_scope.cancel()


def phases(events: Iterable[tuple[float, BackendInstallProgress]]) -> list[str]:
    seen = [event.phase for _, event in events]
    return [phase for at, phase in enumerate(seen) if at == 0 or seen[at - 1] != phase]


async def test_an_install_tells_its_phases_in_order_and_ends_at_a_hundred() -> None:
    """N-B29, G-F19, G-2.1.2: real phases and a terminal 100 %, in order."""
    async with memory_node() as node:
        node.offer("engine")
        node.parts.artifacts().delay_s = 2
        async with heard(node) as events:
            reply = await node.install("engine", "model", op_id=OP)
            assert reply.success
    assert phases(events) == ["resolving", "downloading", "extracting", "starting"]
    percentages = [event.percentage for _, event in events]
    assert percentages == sorted(percentages)
    assert percentages[0] == 0
    assert percentages[-1] == 100
    assert percentages.count(100) == 1
    assert {(e.op_id, e.node_id, e.backend) for _, e in events} == {(OP, node.subjects.node_id, "engine")}


async def test_what_is_downloaded_is_told_as_upstream_tells_it() -> None:
    """G-2.6.15: sizes for people, and what from where."""
    async with memory_node() as node:
        node.offer("engine")
        async with heard(node) as events:
            await node.install("engine", op_id=OP)
    downloading = next(event for _, event in events if event.phase == "downloading")
    assert downloading.file_name == "Downloading ocifile:///images/engine.tar"
    assert downloading.total == "10 B"


async def test_without_an_operation_nothing_is_published() -> None:
    """G-2.1.2."""
    async with memory_node() as node:
        node.offer("engine")
        subscription = await node.bus.subscribe("nodes.*.backend.install.>")
        await node.install("engine")
        await subscription.unsubscribe()
        assert [message async for message in subscription] == []


async def test_an_upgrade_is_told_on_the_same_subject_and_starts_nothing() -> None:
    """N-B29."""
    async with memory_node() as node:
        node.offer("engine")
        async with heard(node) as events:
            request = BackendUpgradeRequest(backend="engine", op_id=OP)
            reply = await node.ask(node.subjects.upgrade, request, BackendUpgradeReply)
            assert reply.success
    assert phases(events) == ["resolving", "downloading", "extracting"]
    assert events[-1][1].percentage == 100


@pytest.mark.parametrize("subject", ["install", "upgrade"])
async def test_a_failure_never_reaches_a_hundred_and_is_answered(subject: str) -> None:
    """N-B29."""
    async with memory_node() as node:
        node.offer("engine")
        node.parts.artifacts().broken.add("ocifile:///images/engine.tar")
        async with heard(node) as events:
            if subject == "install":
                install = BackendInstallRequest(backend="engine", op_id=OP)
                failed = await node.ask(node.subjects.install, install, BackendInstallReply)
                assert "is set broken" in failed.error
            else:
                upgrade = BackendUpgradeRequest(backend="engine", op_id=OP)
                answer = await node.ask(node.subjects.upgrade, upgrade, BackendUpgradeReply)
                assert "is set broken" in answer.error
    assert phases(events) == ["resolving", "downloading"]
    assert all(event.percentage < 100 for _, event in events)


async def test_what_is_installed_already_is_started_and_told_so() -> None:
    async with memory_node() as node:
        node.offer("engine")
        await node.install("engine")
        async with heard(node) as events:
            await node.install("engine", "model", op_id=OP)
    assert phases(events) == ["starting"]
    assert events[-1][1].percentage == 100


async def test_a_second_install_tells_that_it_waits_and_how_far_the_first_is() -> None:
    """N-B29: its bar moves with the one it waits for, and ends by itself."""
    async with memory_node() as node:
        node.offer("engine")
        artifacts = node.parts.artifacts()
        artifacts.delay_s = 2
        async with heard(node, "op.1") as first, heard(node, "op.2") as second:

            async def install_later() -> None:
                await anyio.sleep(1)
                assert (await node.install("engine", "two", op_id="op.2")).success

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: node.install("engine", "one", op_id="op.1"))
                tasks.start_soon(install_later)
    assert second[-1][0] - first[-1][0] < 1  # it fetched nothing itself
    assert phases(first) == phases(second) == ["resolving", "downloading", "extracting", "starting"]
    waited = [event.file_name for _, event in second if event.phase == "resolving"]
    assert waited[-1] == "waiting for another operation on engine"
    heard_of = [event for at_s, event in second if event.phase in {"downloading", "extracting"}]
    assert {event.file_name for event in heard_of} <= {event.file_name for _, event in first}
    assert all(event.op_id == "op.2" for _, event in second)
    percentages = [event.percentage for _, event in second]
    assert percentages == sorted(percentages)
    assert percentages[-1] == 100


async def test_an_install_whose_fetch_was_taken_over_tells_how_far_the_newer_one_is() -> None:
    async with memory_node() as node:
        node.offer("engine")
        node.parts.artifacts().delay_s = 10
        async with heard(node, "op.1") as older, heard(node, "op.2") as newer:

            async def force_later() -> None:
                await anyio.sleep(5)
                assert (await node.install("engine", "two", force=True, op_id="op.2")).success

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: node.install("engine", "one", op_id="op.1"))
                tasks.start_soon(force_later)
    assert phases(newer) == ["resolving", "downloading", "extracting", "starting"]
    assert {event.phase for at_s, event in older if at_s > 14} == {"downloading", "extracting", "starting"}
    for events in (older, newer):
        percentages = [event.percentage for _, event in events]
        assert percentages == sorted(percentages)
        assert percentages[-1] == 100


async def test_whoever_waits_for_an_install_that_fails_goes_on_by_itself() -> None:
    async with memory_node() as node:
        node.offer("engine")
        artifacts = node.parts.artifacts()
        artifacts.delay_s = 2
        artifacts.broken.add("ocifile:///images/engine.tar")
        async with heard(node, "op.1") as first, heard(node, "op.2") as second:

            async def mend_and_install() -> None:
                await anyio.sleep(1)
                async with anyio.create_task_group() as again:
                    again.start_soon(lambda: node.install("engine", "two", op_id="op.2"))
                    await anyio.sleep(2)
                    artifacts.broken.clear()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: node.install("engine", "one", op_id="op.1"))
                tasks.start_soon(mend_and_install)
    assert first[-1][1].percentage < 100
    assert second[-1][1].percentage == 100


async def test_a_deletion_is_waited_for_in_words_too() -> None:
    async with memory_node() as node:
        node.offer("engine")
        path = node.container.settings().backends_path / "engine"
        async with heard(node) as events, anyio.create_task_group() as tasks:
            locks = node.container.installer().locks
            async with locks.hold(path):
                tasks.start_soon(lambda: node.install("engine", op_id=OP))
                await anyio.sleep(5)
                assert events[-1][1].file_name == "waiting for another operation on engine"
    assert events[-1][1].percentage == 100


async def test_operations_side_by_side_do_not_mix() -> None:
    async with memory_node() as node:
        for name in ("one", "two"):
            node.offer(name)
        async with (
            heard(node, "op.1") as first,
            heard(node, "op.2") as second,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(lambda: node.install("one", op_id="op.1"))
            tasks.start_soon(lambda: node.install("two", op_id="op.2"))
    assert {event.backend for _, event in first} == {"one"}
    assert {event.backend for _, event in second} == {"two"}
    assert {event.op_id for _, event in first} == {"op.1"}


async def test_a_forced_install_is_told_too() -> None:
    async with memory_node() as node:
        node.offer("engine")
        await node.install("engine")
        async with heard(node) as events:
            await node.install("engine", force=True, op_id=OP)
    assert phases(events) == ["resolving", "downloading", "extracting", "starting"]


async def test_events_of_one_phase_come_at_most_four_times_a_second_and_the_newest_counts() -> None:
    """N-B29, G-2.6.16: a new phase does not wait."""
    async with memory_node() as node:
        subject = node.subjects.install_progress(OP)
        events = ProgressEvents(node.bus.publish, subject, OP, "n", "engine")
        async with heard(node) as published, anyio.create_task_group() as tasks:
            tasks.start_soon(events.run)
            for number in range(101):
                events.listen(InstallStep(InstallPhase.DOWNLOADING, "x", number, 100))
                await anyio.sleep(0.01)
            events.listen(InstallStep(InstallPhase.EXTRACTING, "x", 100, 100))
            await anyio.sleep(0.001)
            assert published[-1][1].phase == "extracting"
            events.end()
    times_s = [at_s for at_s, event in published if event.phase == "downloading"]
    assert len(times_s) <= 6
    assert all(later_s - earlier_s >= 0.249 for earlier_s, later_s in pairwise(times_s[:-1]))
    assert [event.percentage for _, event in published if event.phase == "downloading"][-1] == 99


async def test_a_bus_that_takes_nothing_is_told_and_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(subject: str, payload: bytes) -> None:
        raise BusUnavailable("nats://h", "gone")

    events = ProgressEvents(refuse, "subject", OP, "n", "engine")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(events.run)
        events.listen(InstallStep(InstallPhase.RESOLVING))
        events.succeeded()
        events.end()
    assert [record.message[:19] for record in caplog.records] == ["progress event lost"] * 2


def test_the_golden_event_is_what_we_would_write() -> None:
    event = BackendInstallProgress.from_wire(GOLDEN["request_wire"].encode())
    assert event.to_wire().decode() == GOLDEN["request_wire"]
    assert human_bytes(412 * MIB) == event.current
    assert human_bytes(round(2.1 * 1024 * MIB)) == event.total


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 << 40, "5.0 TiB"),
        (1 << 61, "2048.0 PiB"),
    ],
)
def test_sizes_are_written_with_one_decimal(size: int, text: str) -> None:
    """G-2.6.15."""
    assert human_bytes(size) == text


STEPS = st.builds(
    InstallStep,
    st.sampled_from(InstallPhase),
    st.just("x"),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 40),
)


@given(st.lists(STEPS))
def test_a_percentage_never_falls_and_is_not_done_before_the_end(steps: list[InstallStep]) -> None:
    """N-B29, G-2.6.15: also when a source breaks and a mirror begins anew."""
    percentage = Percentage()
    values = [percentage.after(step) for step in steps]
    assert values == sorted(values)
    assert all(0 <= value <= 99 for value in values)
