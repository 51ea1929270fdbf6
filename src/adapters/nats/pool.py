"""Which server to try next, and when."""

import random
from collections import deque
from collections.abc import Iterable

from .servers import Server

# nats.go's, so that a fleet does not come back in one beat: 100 ms in 2 s, or 1 s where each has to do TLS.
SPREAD = 0.05
TLS_SPREAD = 0.5
_FIRST_REST = 0.05  # of the longest rest: a server that was only restarted is back within a second


class ServerPool:
    """The servers of the list, in random order, and what their cluster told; each is tried in turn.

    Between two attempts at one server lie `retry_s` seconds, and up to the part `spread` of it more. After
    a connection was lost the first rests are shorter: a twentieth of that, doubling.
    """

    def __init__(self, servers: tuple[Server, ...], *, retry_s: float, spread: float = SPREAD) -> None:
        self._listed = servers
        self._retry_s = retry_s
        self._spread = spread
        self._turns = deque(random.sample(servers, len(servers)))
        self._rested_at_s: dict[Server, float] = {}
        self._rest_s: dict[Server, float] = {}

    def next(self, *, now_s: float) -> tuple[Server, float]:
        """The server whose turn it is, and the time from which it may be tried (not before `now_s`)."""
        server = self._turns[0]
        self._turns.rotate(-1)
        at_s = max(now_s, self._rested_at_s.get(server, now_s))
        rest_s = self._rest_s.get(server, self._retry_s)
        self._rest_s[server] = min(rest_s * 2, self._retry_s)
        rest_s *= random.uniform(1, 1 + self._spread)  # noqa: S311 - no secret
        self._rested_at_s[server] = at_s + rest_s
        return server, at_s

    def lost(self) -> None:
        """A connection was there and is gone: whoever is up again is found soon."""
        self._rest_s = dict.fromkeys(self._turns, self._retry_s * _FIRST_REST)

    def learn(self, others: Iterable[Server]) -> None:
        """Keep the listed servers and `others`; those learned before and not told again are gone."""
        known = dict.fromkeys((*self._listed, *others))
        kept = [server for server in self._turns if server in known]
        self._turns = deque((*kept, *(server for server in known if server not in kept)))
        self._rested_at_s = {server: at_s for server, at_s in self._rested_at_s.items() if server in known}
