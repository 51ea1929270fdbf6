"""Trying again: how often, how long to wait, and which answers are worth it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from .client import Answer, WebFailure
from .flight import Flight

Result = TypeVar("Result")

# Those the server may answer otherwise in a moment; as go-containerregistry retries them.
_PASSING = frozenset({408, 425, 429, 499, 500, 502, 503, 504, 522})


@dataclass(frozen=True, slots=True)
class Patience:
    """Waits `first_wait_s`, then twice as long each time, up to `longest_wait_s`, with some spread.

    A server that asks to be left alone for longer than `longest_wait_s` is given up at once, and so is one
    whose certificate is refused.
    """

    attempts: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0

    def persist(self, work: Callable[[], Result], flight: Flight) -> Result:
        """What `work` returns, called anew after each WebFailure.

        Raises:
            WebFailure: that of the last attempt.
            FetchCut: the flight is over.
        """
        for attempt in range(1, self.attempts):
            try:
                return work()
            except WebFailure as failure:
                self.wait(attempt, failure, flight)
        return work()

    def wait(self, failures: int, failure: WebFailure, flight: Flight) -> None:
        """Wait after the latest of so many failures in a row; raises `failure` where waiting is in vain."""
        is_in_vain = failure.is_untrusted or failure.retry_after_s > self.longest_wait_s
        if failures >= self.attempts or is_in_vain:
            flight.check()
            raise failure
        backoff_s = min(self.first_wait_s * 2 ** (failures - 1), self.longest_wait_s)
        flight.pause(max(failure.retry_after_s, backoff_s * random.uniform(1, 1.2)))  # noqa: S311 - no secret


def require_lasting(answer: Answer, what: str) -> None:
    """Raise WebFailure for an answer that the server may take back in a moment."""
    if answer.status in _PASSING:
        wait_s = _retry_after_s(answer)
        tail = f"; it wants to be left alone for {wait_s:g} s" if wait_s else ""
        raise WebFailure(f"{what}: the server answers {answer.status}{tail}", retry_after_s=wait_s)


def _retry_after_s(answer: Answer) -> float:
    """Seconds, or a date as the server's own clock shows it; 0 where it does not say, or says nonsense."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    try:
        then, now = parsedate_to_datetime(text), parsedate_to_datetime(answer.headers.get("date", ""))
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError):
        return 0.0
