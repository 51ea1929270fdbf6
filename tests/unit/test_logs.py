"""Log lines: their form, their level, what they must never carry."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from localai_worker.app.logs import LineFormatter, RepeatFoldingHandler, set_up_logging

log = logging.getLogger("localai_worker.app.sample")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(*, level: str = "info", line_format: str = "default", dedup: bool | None = None) -> io.StringIO:
    stream = io.StringIO()
    set_up_logging(level=level, line_format=line_format, dedup=dedup, stream=stream)
    return stream


def test_a_line_has_time_level_logger_and_message() -> None:
    stream = written()
    log.info("listening: port=%d", 50050)
    time, rest = stream.getvalue().split(" ", 1)
    assert time.endswith("Z")
    assert rest == "INFO    app.sample: listening: port=50050\n"


def test_text_lines_are_keys_and_values() -> None:
    stream = written(line_format="text")
    log.warning('said "no"\nand left')
    line = stream.getvalue()
    assert line.endswith('level=WARNING logger=app.sample msg="said \\"no\\"\\nand left"\n')
    assert line.startswith("time=2")
    assert line.count("\n") == 1


def test_json_lines_are_objects_with_the_traceback_inside() -> None:
    stream = written(line_format="json")
    try:
        raise ValueError("no port in nats://u:hush@h")
    except ValueError:
        log.exception("failed at nats://u:hush@h")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["level"] == "ERROR"
    assert entry["msg"] == "failed at nats://u:***@h"
    assert entry["trace"].startswith("Traceback")
    assert "hush" not in line


@pytest.mark.parametrize("line_format", ["default", "text", "json"])
def test_passwords_in_urls_are_masked_wherever_they_come_from(line_format: str) -> None:
    stream = written(line_format=line_format)
    log.info("connected to %s", "nats://worker:hush@nats:4222")
    assert "hush" not in stream.getvalue()
    assert "nats://worker:***@nats:4222" in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("error", ["e"]),
        ("warn", ["w", "e"]),
        ("info", ["i", "w", "e"]),
        ("debug", ["d", "i", "w", "e"]),
        ("trace", ["t", "d", "i", "w", "e"]),
    ],
)
def test_a_level_shows_itself_and_what_is_worse(level: str, shown: list[str]) -> None:
    stream = written(level=level)
    for severity, message in ((5, "t"), (10, "d"), (20, "i"), (30, "w"), (40, "e")):
        log.log(severity, message)
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == shown


def test_libraries_that_log_every_request_are_quiet_until_debug() -> None:
    stream = written()
    logging.getLogger("httpx").info("request")
    logging.getLogger("httpx").warning("slow")
    assert "request" not in stream.getvalue()
    assert "slow" in stream.getvalue()
    stream = written(level="debug")
    logging.getLogger("httpx").info("request")
    assert "request" in stream.getvalue()


def test_a_forged_line_in_a_message_is_indented_and_escape_codes_are_shown() -> None:
    stream = written()
    log.error("backend said:\n2026-01-01T00:00:00Z INFO  all is well\x1b[2J")
    second = stream.getvalue().splitlines()[1]
    assert second == "    2026-01-01T00:00:00Z INFO  all is well\\x1b[2J"


def test_setting_up_twice_writes_each_line_once() -> None:
    first = written()
    second = written()
    log.info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_repeated_lines_become_a_count() -> None:
    stream = written(dedup=True)
    for _ in range(4):
        log.warning("heartbeat missed: %s", "refused")
    log.info("heartbeat accepted")
    messages = [line.split(": ", 1)[1] for line in stream.getvalue().splitlines()]
    assert messages == [
        "heartbeat missed: refused",
        "heartbeat missed: refused (repeated 3 times)",
        "heartbeat accepted",
    ]


def test_lines_that_alternate_are_all_written() -> None:
    stream = written(dedup=True)
    for text in ("a", "b", "a", "b"):
        log.info(text)
    assert [line[-1] for line in stream.getvalue().splitlines()] == ["a", "b", "a", "b"]


def test_a_count_is_written_each_minute_and_at_the_end() -> None:
    stream = io.StringIO()
    handler = RepeatFoldingHandler(stream)
    for created in (0.0, 10.0, 50.0, 61.0, 62.0):
        handler.handle(logging.makeLogRecord({"msg": "missed", "created": created}))
    assert stream.getvalue().splitlines() == ["missed", "missed (repeated 3 times)"]
    handler.close()
    assert stream.getvalue().splitlines()[2:] == ["missed (repeated 1 times)"]


def test_a_record_whose_arguments_do_not_fit_breaks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    handler = RepeatFoldingHandler(stream)
    handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("text",)}))
    handler.handle(logging.makeLogRecord({"msg": "next"}))
    assert stream.getvalue() == "next\n"
    assert "Logging error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stream", "dedup", "lines"),
    [
        (io.StringIO(), None, 3),
        (Terminal(), None, 1),
        (Terminal(), False, 3),
        (io.StringIO(), True, 1),
    ],
)
def test_repeats_are_folded_on_a_terminal_unless_it_is_set(
    stream: io.StringIO, dedup: bool | None, lines: int
) -> None:
    stream = type(stream)()
    set_up_logging(level="info", line_format="default", dedup=dedup, stream=stream)
    for _ in range(3):
        log.info("again")
    assert len(stream.getvalue().splitlines()) == lines


def test_only_handlers_of_an_earlier_set_up_are_replaced() -> None:
    foreign = logging.NullHandler()
    logging.getLogger().addHandler(foreign)
    written()
    written()
    ours = [
        handler for handler in logging.getLogger().handlers if isinstance(handler.formatter, LineFormatter)
    ]
    assert foreign in logging.getLogger().handlers
    assert len(ours) == 1
