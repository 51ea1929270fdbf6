"""How many connections: found out by measuring, in pure arithmetic."""

from collections.abc import Callable

from localai_worker.domain.transfer_lanes import LONGEST_RECHECK_WINDOWS, RECHECK_WINDOWS, SLOW_LANE, LanePlan


def played(rate_of: Callable[[int], float], windows: int) -> list[int]:
    plan = LanePlan()
    return [plan.observe(rate_of(plan.lanes)) for _ in range(windows)]


def test_throttled_connections_are_multiplied_until_no_more_are_allowed() -> None:
    """Once each of two brought as much as the one, two steps are taken at once."""
    assert played(lambda lanes: 20e6 * lanes, 5) == [2, 8, 16, 16, 16]


def test_fast_lanes_are_multiplied_with_care() -> None:
    assert played(lambda lanes: SLOW_LANE * lanes, 5) == [2, 4, 8, 16, 16]


def test_where_one_stream_is_the_limit_one_is_kept() -> None:
    pause = 2 * RECHECK_WINDOWS  # twice as long after each trial in vain
    lanes = played(lambda lanes: 300e6, 3 + pause + 2)
    assert lanes[:3] == [2, 2, 1]
    assert set(lanes[2 : 2 + pause]) == {1}
    assert lanes[-3:] == [2, 2, 1]  # tried again


def test_trials_in_vain_become_rare() -> None:
    lanes = played(lambda lanes: 300e6, 10 * LONGEST_RECHECK_WINDOWS)
    assert lanes.count(2) / len(lanes) < 0.01
    assert 2 in lanes[-LONGEST_RECHECK_WINDOWS - 3 :]


def test_growth_ends_where_it_brings_nothing_more() -> None:
    assert played(lambda lanes: min(20e6 * lanes, 100e6), 5) == [2, 8, 16, 16, 8]


def test_one_bad_window_ends_no_growth() -> None:
    rates = iter([20e6, 30e6, 5e6, 45e6, 80e6])
    assert played(lambda lanes: next(rates), 5) == [2, 4, 4, 8, 16]


def test_a_limit_that_goes_away_is_noticed() -> None:
    plan = LanePlan()
    for _ in range(5):
        plan.observe(300e6)
    assert plan.lanes == 1
    for _ in range(2 * RECHECK_WINDOWS + 5):
        plan.observe(20e6 * plan.lanes)
    assert plan.lanes == 16


def test_no_bytes_at_all_do_not_multiply_the_lanes_for_ever() -> None:
    assert max(played(lambda lanes: 0.0, 40)) <= 16
