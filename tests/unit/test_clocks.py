"""What the two clocks add to their contract."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from localai_worker.adapters.memory.clock import ManualClock
from localai_worker.adapters.system_clock import SystemClock

NOON = datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))


def test_the_system_clock_shows_the_present_in_the_local_zone() -> None:
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert before <= now <= datetime.now(UTC)
    assert now.utcoffset() == now.replace(tzinfo=None).astimezone().utcoffset()


def test_a_manual_clock_stands_until_it_is_moved() -> None:
    clock = ManualClock(NOON)
    assert clock.now() == clock.now() == NOON
    clock.advance(90.5)
    assert clock.now() == NOON + timedelta(seconds=90.5)
    clock.advance(-0.5)
    assert clock.now() == NOON + timedelta(seconds=90)
    clock.set(NOON - timedelta(days=1))
    assert clock.now() == NOON - timedelta(days=1)
    assert clock.now().utcoffset() == timedelta(hours=2)


def test_a_manual_clock_takes_no_time_without_a_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        ManualClock(NOON.replace(tzinfo=None))
    clock = ManualClock(NOON)
    with pytest.raises(ValueError, match="time zone"):
        clock.set(NOON.replace(tzinfo=None))
    assert clock.now() == NOON
