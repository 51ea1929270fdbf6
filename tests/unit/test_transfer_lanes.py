"""How many connections: found out by measuring, in pure arithmetic."""

from collections.abc import Callable

from localai_worker.domain.transfer_lanes import RECHECK_WINDOWS, LanePlan


def played(rate_of: Callable[[int], float], windows: int) -> list[int]:
    plan = LanePlan()
    return [plan.observe(rate_of(plan.lanes)) for _ in range(windows)]


def test_throttled_connections_are_multiplied_until_no_more_are_allowed() -> None:
    assert played(lambda lanes: 20.0 * lanes, 6) == [2, 4, 8, 16, 16, 16]


def test_where_one_stream_is_the_limit_one_is_kept() -> None:
    lanes = played(lambda lanes: 300.0, 3 + RECHECK_WINDOWS + 2)
    assert lanes[:3] == [2, 2, 1]
    assert set(lanes[2 : 2 + RECHECK_WINDOWS]) == {1}
    assert lanes[-3:] == [2, 2, 1]  # tried again, in vain


def test_growth_ends_where_it_brings_nothing_more() -> None:
    assert played(lambda lanes: min(20.0 * lanes, 100.0), 6) == [2, 4, 8, 16, 16, 8]


def test_one_bad_window_ends_no_growth() -> None:
    rates = iter([20.0, 40.0, 5.0, 80.0, 160.0])
    assert played(lambda lanes: next(rates), 5) == [2, 4, 4, 8, 16]


def test_a_limit_that_goes_away_is_noticed() -> None:
    plan = LanePlan()
    for _ in range(5):
        plan.observe(300.0)
    assert plan.lanes == 1
    for _ in range(RECHECK_WINDOWS + 5):
        plan.observe(20.0 * plan.lanes)
    assert plan.lanes == 16


def test_no_bytes_at_all_do_not_multiply_the_lanes_for_ever() -> None:
    assert max(played(lambda lanes: 0.0, 40)) <= 16
