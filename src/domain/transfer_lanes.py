"""How many connections a transfer should use: as many as make it faster, and no more. Pure arithmetic."""

from dataclasses import dataclass, field

GAIN = 1.2  # twice the lanes must bring at least this much, or the fewer lanes are kept
NEARLY = 0.8  # of what so many more lanes can bring at best: then the next step may be a longer one,
SLOW_LANE = 60e6  # unless each lane brings more bytes a second than this, and one too many may do harm
RECHECK_WINDOWS = 25  # what was measured once need not hold for an hour
LONGEST_RECHECK_WINDOWS = 400  # of looks in vain, each makes the pause to the next twice as long


@dataclass
class LanePlan:
    """Multiplies the lanes while that pays, goes back where it does not, and tries again now and then.

    Where a disk, a processor or one stream is the limit, a second lane brings nothing: one is kept. Where
    each connection is throttled, or far away, `most` are soon reached.
    """

    most: int = 16
    lanes: int = 1
    lane_rate: float = 0.0  # bytes a second of one lane, when measured last
    _before: tuple[int, float] = field(default=(0, 0.0), repr=False)  # fewer lanes, and their rate
    _growing: bool = field(default=True, repr=False)
    _doubtful: bool = field(default=False, repr=False)
    _settled_windows: int = field(default=0, repr=False)
    _recheck_windows: int = field(default=RECHECK_WINDOWS, repr=False)

    @property
    def lanes_soon(self) -> int:
        """The most lanes there may be after the next window."""
        return min(4 * self.lanes, self.most) if self._growing else self.lanes

    def observe(self, rate: float) -> int:
        """The lanes to use from now on, after `rate` bytes a second were measured with the present ones."""
        lanes_before, rate_before = self._before
        self.lane_rate = rate / self.lanes
        if not self._growing:
            self._settled_windows += 1
            if self._settled_windows >= self._recheck_windows:
                self._grow(rate, 2)
        elif self.lanes == 1 or rate >= GAIN * rate_before:
            self._grow(rate, 4 if self._is_proportional() else 2)
        elif not self._doubtful:
            self._doubtful = True  # on a busy machine one window tells little
        else:
            self._growing, self._settled_windows, self._doubtful = False, 0, False
            self._recheck_windows = min(2 * self._recheck_windows, LONGEST_RECHECK_WINDOWS)
            self.lanes = lanes_before
        return self.lanes

    def _is_proportional(self) -> bool:
        """Whether each of the lanes brings as much as fewer did, and none of them very much."""
        lanes_before, rate_before = self._before
        alike = lanes_before > 0 and self.lane_rate >= NEARLY * rate_before / lanes_before
        return alike and self.lane_rate < SLOW_LANE

    def _grow(self, rate: float, factor: int) -> None:
        self._settled_windows, self._doubtful = 0, False
        self._growing = self.lanes < self.most
        self._before = (self.lanes, rate)
        self.lanes = min(factor * self.lanes, self.most)
