"""Wall-clock time that follows the event loop."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import anyio


@dataclass(frozen=True)
class LoopClock:
    """`start` plus the loop's time, so that a virtual loop moves both together; `start` outside a loop."""

    start: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        try:
            passed_s = anyio.current_time()
        except RuntimeError:  # a scene is set before its loop runs
            passed_s = 0.0
        return self.start + timedelta(seconds=passed_s)
