"""The machine's TCP ports."""

from typing import Protocol


class Network(Protocol):
    def can_listen(self, port: int) -> bool:
        """True if a server could bind TCP `port` on all interfaces right now (tried, then let go).

        A port on which anybody listens, on any interface, gives False; so does one the system reserves.
        """
