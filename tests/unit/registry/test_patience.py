"""Trying again: how often, after how long, and when not."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from localai_worker.adapters.artifacts.web.client import Answer, WebFailure
from localai_worker.adapters.artifacts.web.flight import FetchCut, Flight
from localai_worker.adapters.artifacts.web.patience import Patience, require_lasting


@dataclass
class Clocked(Flight):
    """A flight that notes its pauses instead of waiting."""

    pauses: list[float] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.check()


def failing(times: int, **options: Any) -> Any:
    left = [times]

    def work() -> str:
        if left[0]:
            left[0] -= 1
            raise WebFailure("it broke", **options)
        return "done"

    return work


def answer(status: int, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, "https://r.invalid/", cast("Any", None))


def test_waits_double_up_to_the_longest_with_some_spread() -> None:
    flight = Clocked()
    assert Patience(6, 1.0, 5.0).persist(failing(5), flight) == "done"
    for pause, least in zip(flight.pauses, [1, 2, 4, 5, 5], strict=True):
        assert least <= pause <= least * 1.2


def test_the_last_failure_is_raised_as_it_is() -> None:
    flight = Clocked()
    with pytest.raises(WebFailure, match="it broke"):
        Patience(3).persist(failing(9), flight)
    assert len(flight.pauses) == 2


def test_a_server_that_asks_for_more_time_gets_it() -> None:
    flight = Clocked()
    Patience(3, 0.1, 60).persist(failing(1, retry_after_s=30), flight)
    assert flight.pauses == [30]


def test_a_server_that_asks_for_too_much_time_is_given_up() -> None:
    flight = Clocked()
    with pytest.raises(WebFailure):
        Patience(3, 0.1, 60).persist(failing(1, retry_after_s=61), flight)
    assert flight.pauses == []


def test_a_certificate_that_is_refused_is_not_looked_at_again() -> None:
    flight = Clocked()
    with pytest.raises(WebFailure):
        Patience(3).persist(failing(1, is_untrusted=True), flight)
    assert flight.pauses == []


def test_a_cut_flight_waits_no_longer() -> None:
    flight = Clocked()
    flight.cut()
    with pytest.raises(FetchCut):
        Patience(3).persist(failing(1), flight)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, 0),
        ({"retry_after": "7"}, 7),
        ({"retry_after": "soon"}, 0),
        ({"retry_after": "-5"}, 0),
        (
            {"retry_after": "Sun, 06 Nov 1994 08:49:38 GMT", "date": "Sun, 06 Nov 1994 08:49:30 GMT"},
            8,
        ),
        ({"retry_after": "Sun, 06 Nov 1994 08:49:38 GMT", "date": "now"}, 0),
    ],
)
def test_the_pause_is_read_as_seconds_or_as_a_date_by_the_servers_own_clock(
    headers: dict[str, str], wait_s: float
) -> None:
    with pytest.raises(WebFailure) as caught:
        require_lasting(answer(429, **headers), "registry r.invalid")
    assert caught.value.retry_after_s == wait_s


@pytest.mark.parametrize("status", [200, 206, 301, 400, 401, 403, 404, 416, 501])
def test_other_answers_last(status: int) -> None:
    require_lasting(answer(status), "registry r.invalid")
