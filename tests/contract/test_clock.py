"""What every `Clock` promises."""

import pytest

from localai_worker.adapters.memory.clock import ManualClock
from localai_worker.adapters.system_clock import SystemClock
from localai_worker.domain.ports.clock import Clock


@pytest.fixture(params=["memory", "system"])
def clock(request: pytest.FixtureRequest) -> Clock:
    return ManualClock() if request.param == "memory" else SystemClock()


def test_the_time_carries_its_zones_offset(clock: Clock) -> None:
    assert clock.now().utcoffset() is not None


def test_time_does_not_run_backwards_by_itself(clock: Clock) -> None:
    assert clock.now() <= clock.now()
