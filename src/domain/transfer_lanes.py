"""How many connections a transfer should use: as many as make it faster, and no more. Pure arithmetic."""

from dataclasses import dataclass, field

GAIN = 1.2  # twice the lanes must bring at least this much, or the fewer lanes are kept
RECHECK_WINDOWS = 25  # what was measured once need not hold for an hour


@dataclass
class LanePlan:
    """Doubles the lanes while that pays, goes one step back where it does not, and tries again now and then.

    Where a disk, a processor or one stream is the limit, a second lane brings nothing: one is kept. Where
    each connection is throttled, or far away, `most` are soon reached.
    """

    most: int = 16
    lanes: int = 1
    _rate_before: float = field(default=0.0, repr=False)  # with half the lanes
    _growing: bool = field(default=True, repr=False)
    _doubtful: bool = field(default=False, repr=False)
    _settled_windows: int = field(default=0, repr=False)

    def observe(self, rate: float) -> int:
        """The lanes to use from now on, after `rate` bytes a second were measured with the present ones."""
        if not self._growing:
            self._settled_windows += 1
            if self._settled_windows >= RECHECK_WINDOWS:
                self._grow(rate)
        elif self.lanes == 1 or rate >= GAIN * self._rate_before:
            self._grow(rate)
        elif not self._doubtful:
            self._doubtful = True  # on a busy machine one window tells little
        else:
            self._growing, self._settled_windows, self._doubtful = False, 0, False
            self.lanes //= 2
        return self.lanes

    def _grow(self, rate: float) -> None:
        self._settled_windows, self._doubtful = 0, False
        self._growing = self.lanes < self.most
        self._rate_before = rate
        self.lanes = min(2 * self.lanes, self.most)
