"""How long a starting backend is waited for; pure, the caller brings the time."""

from dataclasses import dataclass, field

from .ports.processes import Work

_BUSY_SHARE = 0.1  # of one core: answering our own health checks takes less
_LOOKS = 4  # within one patience
_LOOK_EVERY_S = 2.0


@dataclass
class ReadyDeadline:
    """`patience_s` after the last sign of work, and never later than `limit_s` after the begin.

    Signs of work are CPU time and output: loading a large library or compiling kernels takes minutes, and
    to start over would take them again.
    """

    began_s: float
    patience_s: float
    limit_s: float
    _seen: Work = field(default_factory=Work)
    _seen_s: float = field(init=False)
    _sign_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._seen_s = self._sign_s = self.began_s

    @property
    def at_s(self) -> float:
        """When the time is up, by what has been seen so far."""
        return min(self._sign_s + self.patience_s, self.began_s + max(self.limit_s, self.patience_s))

    @property
    def quiet_s(self) -> float:
        """The patience, where that and not the limit ended a wait in which there had been work; else 0."""
        patience_ran_out = self._sign_s + self.patience_s < self.began_s + self.limit_s
        return self.patience_s if self._sign_s > self.began_s and patience_ran_out else 0.0

    @property
    def next_look_s(self) -> float:
        """When to look again at what the process does."""
        return self._seen_s + min(_LOOK_EVERY_S, self.patience_s / _LOOKS)

    def look(self, work: Work, *, now_s: float) -> None:
        """Take note of what the process has done until now."""
        busy_s = work.cpu_s - self._seen.cpu_s
        if work.output_bytes != self._seen.output_bytes or busy_s >= _BUSY_SHARE * (now_s - self._seen_s):
            self._sign_s = now_s
        self._seen, self._seen_s = work, now_s
