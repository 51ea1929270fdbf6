"""A clock that stands still until somebody moves it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass
class ManualClock:
    """A `Clock` for tests and the simulator; it may also be set back, as real ones are."""

    time: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def __post_init__(self) -> None:
        self.set(self.time)

    def now(self) -> datetime:
        return self.time

    def set(self, time: datetime) -> None:
        """Show `time` from now on; it must carry its zone's offset (ValueError)."""
        if time.utcoffset() is None:
            raise ValueError(f"{time} says nothing about its time zone")
        self.time = time

    def advance(self, seconds_s: float) -> None:
        """Move on, or back if negative."""
        self.time += timedelta(seconds=seconds_s)
