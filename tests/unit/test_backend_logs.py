"""The log store: rings of lines by replica, live views, and what bounds them."""

import json
from datetime import UTC, datetime, timedelta, timezone

import anyio
import pytest

from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.backend import ReplicaKey
from localai_worker.domain.backend_logs import BackendLogs
from localai_worker.domain.messages.log_lines import LogLine, initial_frame, line_frame, log_lines_body
from tests.golden_http import golden_http

NOON = datetime(2026, 4, 21, 12, tzinfo=UTC)
QWEN = ReplicaKey("org/qwen", 0)


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


def texts(lines: tuple[LogLine, ...]) -> list[str]:
    return [line.text for line in lines]


def test_a_ring_keeps_the_last_thousand_lines_of_a_replica() -> None:
    """G-W9."""
    logs = BackendLogs()
    for number in range(1005):
        logs.append(QWEN, "stdout", str(number), NOON)
    assert texts(logs.lines("org/qwen#0")) == [str(number) for number in range(5, 1005)]


def test_a_model_means_all_its_replicas_in_the_order_of_time_and_a_key_only_itself() -> None:
    logs = BackendLogs()
    for second, replica in enumerate((0, 1, 0, 1)):
        logs.append(ReplicaKey("m", replica), "stderr", f"{replica}", NOON + timedelta(seconds=second))
    logs.append(ReplicaKey("m#x", 0), "stderr", "another model", NOON)
    assert texts(logs.lines("m")) == ["0", "1", "0", "1"]
    assert texts(logs.lines("m#1")) == ["1", "1"]
    assert logs.lines("unknown") == ()
    assert logs.models() == ("m", "m#x")


def test_a_long_line_is_cut_and_says_so() -> None:
    logs = BackendLogs(line_characters=10)
    logs.append(QWEN, "stdout", "x" * 25, NOON)
    assert texts(logs.lines("org/qwen")) == ["xxxxxxxxxx [15 more characters]"]


def test_memory_is_bounded_and_the_longest_silent_lose_their_lines_first() -> None:
    logs = BackendLogs(characters=3000)
    silent, talking = ReplicaKey("silent", 0), ReplicaKey("talking", 0)
    for number in range(5):
        logs.append(silent, "stdout", str(number), NOON)
    for number in range(13):
        logs.append(talking, "stdout", str(number), NOON)
    assert texts(logs.lines("silent")) == ["4"]
    for number in range(13, 30):
        logs.append(talking, "stdout", str(number), NOON)
    assert logs.models() == ("talking",)
    assert texts(logs.lines("talking"))[-1] == "29"
    assert len(logs.lines("talking")) == 14


async def test_a_live_view_begins_where_its_replay_ends() -> None:
    """H-26: nothing is lost between the snapshot and the subscription, and nothing comes twice."""
    logs = BackendLogs()
    logs.append(QWEN, "stdout", "before", NOON)
    with logs.follow("org/qwen") as reader:
        logs.append(QWEN, "stdout", "after", NOON)
        logs.append(ReplicaKey("other", 0), "stdout", "not asked for", NOON)
        logs.append(ReplicaKey("org/qwen", 1), "stdout", "second replica", NOON)
        assert texts(reader.initial) == ["before"]
        assert [(await anext(reader)).text for _ in range(2)] == ["after", "second replica"]


async def test_a_view_opened_before_the_first_line_gets_it() -> None:
    """H-27: upstream's never receives anything."""
    logs = BackendLogs()
    with logs.follow("org/qwen") as reader:
        assert logs.models() == ()
        assert reader.initial == ()
        logs.append(QWEN, "stdout", "hello", NOON)
        assert (await anext(reader)).text == "hello"


async def test_a_reader_that_falls_behind_is_dropped_and_holds_up_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logs = BackendLogs(reader_lines=3)
    with logs.follow("org/qwen") as slow, logs.follow("org/qwen") as quick:
        for number in range(6):
            logs.append(QWEN, "stdout", str(number), NOON)
            assert (await anext(quick)).text == str(number)
        with anyio.fail_after(1):
            assert [line.text async for line in slow] == ["0", "1", "2"]
        assert slow.dropped
        assert not quick.dropped
    assert "log reader dropped, it reads too slowly: id=org/qwen" in caplog.text


async def test_readers_that_have_left_are_forgotten() -> None:
    logs = BackendLogs(reader_lines=1)
    for _ in range(3):
        with logs.follow("org/qwen") as reader:
            logs.append(QWEN, "stdout", "x", NOON)
        logs.append(QWEN, "stdout", "y", NOON)
        assert not reader.dropped


def test_lines_are_written_as_upstream_writes_them() -> None:
    golden = golden_http("seed-14-backend-logs-lines").answer
    (line,) = [LogLine.from_wire(json.dumps(each).encode()) for each in golden]
    assert line == LogLine(
        at=datetime(2026, 4, 21, 8, 5, 1, tzinfo=timezone(timedelta(hours=2))),
        stream="stderr",
        text="load_tensors: offloaded 29/29 layers",
    )
    assert set(line.to_fields()) == set(golden[0])
    tenth = LogLine(at=NOON + timedelta(milliseconds=100), stream="stdout", text="")
    written = '{"timestamp":"2026-04-21T12:00:00.1Z","stream":"stdout","text":""}'
    assert tenth.to_wire().decode() == written
    assert LogLine.from_wire(tenth.to_wire()) == tenth
    assert log_lines_body([]) == b"[]"
    assert log_lines_body([tenth]).decode() == f"[{written}]"
    assert initial_frame([]) == b'{"type":"initial","lines":[]}'
    assert initial_frame([tenth]).decode() == f'{{"type":"initial","lines":[{written}]}}'
    assert line_frame(tenth).decode() == f'{{"type":"line","line":{written}}}'
    whole = LogLine(at=line.at, stream="stderr", text="a")
    assert whole.to_fields()["timestamp"] == "2026-04-21T08:05:01+02:00"
