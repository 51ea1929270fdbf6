"""Wall-clock time. For waiting and deadlines the domain uses anyio, never this."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The current time with the local zone's offset (aware)."""
