"""The log of a call that is repeated for as long as it takes: loud when its outcome changes, else quiet."""

import logging
from dataclasses import dataclass

import anyio

from .errors import FrontendRefused, WorkerError


@dataclass
class OutcomeLog:
    """Tells once that `calls` (a plural, like "heartbeats") fail, once for every other way in which they
    do, and once that they work again. What goes on is told again every `reminder_s` seconds; all else in
    between is logged at debug, with the count.
    """

    calls: str
    log: logging.Logger
    reminder_s: float = 600.0
    _told_s: float = 0.0
    _failures: int = 0
    _since_s: float = 0.0
    _kind: tuple[str, int] | None = None

    def failed(self, how: str, error: WorkerError, level: int) -> None:
        """Note a failure; `how` (like "heartbeat missed") and a refusal's status make it one of a kind."""
        kind = (how, error.status if isinstance(error, FrontendRefused) else 0)
        now_s = anyio.current_time()
        if self._failures == 0:
            self._since_s = now_s
        self._failures += 1
        if kind != self._kind:
            self.log.log(level, "%s: error=%s", how, error)
            self._told_s = now_s
        else:
            due = now_s - self._told_s >= self.reminder_s
            level = level if due else logging.DEBUG
            self._told_s = now_s if due else self._told_s
            self.log.log(level, "%s again: failures=%d error=%s", how, self._failures, error)
        self._kind = kind

    def worked(self) -> None:
        """Note a success."""
        if self._failures:
            lasted_s = anyio.current_time() - self._since_s
            self.log.info("%s work again after %d failure(s), %.0f s", self.calls, self._failures, lasted_s)
        self._failures, self._kind = 0, None
