"""The clock of this machine."""

from datetime import UTC, datetime


class SystemClock:
    """A `Clock` by the operating system, in its time zone."""

    def now(self) -> datetime:
        return datetime.now(UTC).astimezone()
