"""The machine's TCP ports."""

from collections.abc import Collection
from typing import Protocol


class Network(Protocol):
    def can_listen(self, port: int) -> bool:
        """True if a server could bind TCP `port` on all interfaces right now (tried, then let go).

        A port on which anybody listens, on any interface, gives False; so does one the system reserves.
        """

    async def connections(self, ports: Collection[int]) -> int | None:
        """How many TCP connections are established to these local ports; None where nobody can tell.

        Idle ones count too, and so does one from this machine, once. One that either end has begun to
        close does not.
        """
