"""Which gRPC port a replica gets: a pure service without clock, lock or log; the caller brings the time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from .backend import ReplicaKey
from .errors import WorkerError


@dataclass(eq=False)
class NoFreePort(WorkerError):
    """Every port of the range is leased, resting or taken by another program."""

    key: ReplicaKey
    ports: range
    leased: int
    resting: int
    foreign: int

    def __str__(self) -> str:
        others = f" and {self.foreign} taken by other programs" if self.foreign else ""
        span = f"{self.ports.start}-{self.ports.stop - 1}"
        return (
            f"allocating gRPC port for backend {self.key}: no free gRPC port in range: "
            f"{span} is fully consumed by {self.leased} running backend(s) and {self.resting} port(s) "
            f"still in quarantine{others}; raise LOCALAI_GRPC_MAX_PORT to widen the range"
        )


@dataclass(frozen=True, slots=True)
class PortLease:
    """`port` belongs to `key` until it is released."""

    key: ReplicaKey
    port: int


@dataclass(frozen=True, slots=True)
class _Release:
    key: ReplicaKey
    at_s: float


@dataclass
class PortPool:
    """Leases each replica one gRPC port out of `ports`.

    A released port rests `rest_s` seconds before anybody gets it: until the frontend hears of the stop
    its routing row still names that port, and a new listener would answer for the wrong model. It then
    stays reserved for its last key until `affinity_s` seconds after the release, unless nothing else is
    left. The first port of the range goes out last: an address equal to the node's own is not probed by
    the frontend's per-model health check (N-B25).
    Source: LocalAI core/services/worker/supervisor.go, allocatePort.
    """

    ports: range
    rest_s: float = 15.0
    affinity_s: float = 300.0
    _leased: dict[int, ReplicaKey] = field(default_factory=dict)
    _released: dict[int, _Release] = field(default_factory=dict)

    def lease(self, key: ReplicaKey, *, now_s: float, usable: Callable[[int], bool]) -> PortLease:
        """Give `key` a port; `now_s` is monotonic, `usable(port)` tells whether a server could bind it now.

        Order: its own last port, a free port nobody has a claim on (the newest release first), a port
        never used, the base port, another key's claimed port (newest release first).

        Raises:
            NoFreePort: nothing is left.
        """
        self._forget_old_claims(now_s)
        foreign = 0
        for port in self._candidates(key, now_s):
            if usable(port):
                self._released.pop(port, None)
                self._leased[port] = key
                return PortLease(key, port)
            foreign += 1
        raise NoFreePort(key, self.ports, len(self._leased), self.resting(now_s), foreign)

    def claim(self, lease: PortLease) -> None:
        """Take a port that a living process already holds, whatever its state here (adoption)."""
        self._released.pop(lease.port, None)
        self._leased[lease.port] = lease.key

    def release(self, lease: PortLease, *, now_s: float) -> None:
        """End a lease once its process group is confirmed dead; a second release changes nothing."""
        if self._leased.get(lease.port) == lease.key:
            del self._leased[lease.port]
            self._released.pop(lease.port, None)  # the newest release goes to the end of the order
            self._released[lease.port] = _Release(lease.key, now_s)

    def resting(self, now_s: float) -> int:
        """How many ports are at rest."""
        return sum(now_s - release.at_s < self.rest_s for release in self._released.values())

    @property
    def leased(self) -> dict[int, ReplicaKey]:
        """A copy of the current leases, port to key."""
        return dict(self._leased)

    def _candidates(self, key: ReplicaKey, now_s: float) -> Iterator[int]:
        rested = [
            port for port, release in reversed(self._released.items()) if now_s - release.at_s >= self.rest_s
        ]
        own = [port for port in rested if self._released[port].key == key]
        yield from own
        base = self.ports.start
        for port in chain(self.ports[1:], (base,)):
            if port not in self._leased and port not in self._released:
                yield port
        yield from (port for port in rested if port not in own)

    def _forget_old_claims(self, now_s: float) -> None:
        for port, release in list(self._released.items()):
            if now_s - release.at_s >= max(self.affinity_s, self.rest_s):
                del self._released[port]
