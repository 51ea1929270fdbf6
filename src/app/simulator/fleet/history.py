"""The event log of a simulation: a running hash over all of it, and its end to look at."""

import hashlib
from collections import deque
from dataclasses import dataclass, field

import anyio

_KEPT = 400


@dataclass
class History:
    """Every event in order; two runs with equal `digest` did the same at the same times.

    `latest` are the last events as text.
    """

    events: int = 0
    latest: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _closed: bool = False
    _hash: "hashlib.blake2b" = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    def add(self, who: str, what: str) -> None:
        """Log that `who` did `what`, now."""
        if self._closed:
            return
        line = f"{anyio.current_time():.6f} {who} {what}"
        self.events += 1
        self._hash.update(line.encode(errors="surrogateescape"))
        self._hash.update(b"\n")
        self.latest.append(line)

    def close(self) -> None:
        """What follows belongs to the taking down of the simulation."""
        self._closed = True

    @property
    def digest(self) -> str:
        """The hash of everything so far."""
        return self._hash.hexdigest()
