"""What an operator reads of a call that is repeated for ever, in virtual time."""

import logging

import anyio
import pytest

from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.errors import FrontendRefused, FrontendUnavailable
from localai_worker.domain.outcome_log import OutcomeLog

AWAY = FrontendUnavailable("http://frontend", "no connection")
REFUSED = {status: FrontendRefused("http://frontend", status, "no") for status in (401, 403)}


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@pytest.fixture
def outcome(caplog: pytest.LogCaptureFixture) -> OutcomeLog:
    caplog.set_level(logging.DEBUG, logger="test")
    return OutcomeLog("calls", logging.getLogger("test"))


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Levels and the beginnings of the lines."""
    return [
        (record.levelno, record.getMessage().partition(" error=")[0])
        for record in caplog.records
        if record.name == "test"
    ]


async def test_a_failure_is_told_once_and_its_end_with_count_and_time(
    outcome: OutcomeLog, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        outcome.failed("call missed", AWAY, logging.WARNING)
        await anyio.sleep(10)
    outcome.worked()
    outcome.worked()
    assert said(caplog) == [
        (logging.WARNING, "call missed:"),
        (logging.DEBUG, "call missed again: failures=2"),
        (logging.DEBUG, "call missed again: failures=3"),
        (logging.INFO, "calls work again after 3 failure(s), 30 s"),
    ]


async def test_every_other_way_to_fail_is_told(outcome: OutcomeLog, caplog: pytest.LogCaptureFixture) -> None:
    outcome.failed("call missed", AWAY, logging.WARNING)
    outcome.failed("call refused", REFUSED[401], logging.ERROR)
    outcome.failed("call refused", REFUSED[403], logging.ERROR)
    outcome.failed("call missed", AWAY, logging.WARNING)
    levels = [level for level, _ in said(caplog)]
    assert levels == [logging.WARNING, logging.ERROR, logging.ERROR, logging.WARNING]


async def test_after_a_success_the_same_failure_is_news(
    outcome: OutcomeLog, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        outcome.failed("call missed", AWAY, logging.WARNING)
        outcome.worked()
    assert [text for _, text in said(caplog)] == [
        "call missed:",
        "calls work again after 1 failure(s), 0 s",
    ] * 2


async def test_a_success_from_the_start_is_no_news(
    outcome: OutcomeLog, caplog: pytest.LogCaptureFixture
) -> None:
    outcome.worked()
    assert said(caplog) == []


async def test_what_goes_on_is_told_again_every_ten_minutes(
    outcome: OutcomeLog, caplog: pytest.LogCaptureFixture
) -> None:
    """A line that was told once has scrolled away."""
    for _ in range(131):
        outcome.failed("call refused", REFUSED[401], logging.ERROR)
        await anyio.sleep(10)
    loud = [text for level, text in said(caplog) if level == logging.ERROR]
    assert loud == ["call refused:", "call refused again: failures=61", "call refused again: failures=121"]
