"""Wall-clock time that follows the event loop."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import anyio


@dataclass(frozen=True)
class LoopClock:
    """`start` plus the loop's time, so that a virtual loop moves both together; inside a loop only."""

    start: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.start + timedelta(seconds=anyio.current_time())
