"""Which bytes a lane fetches next. Pure arithmetic."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from .byte_spans import ByteSpan

MIB = 1024 * 1024
LEAST_BYTES = 2 * MIB  # of a request's own; below, asking takes as long as the answer


@dataclass
class Pieces:
    """What is left of a transfer, handed out in the file's order.

    Pieces become smaller towards the end, so that all lanes come to it at about the same time.
    """

    _gaps: deque[ByteSpan]

    @classmethod
    def of(cls, gaps: Iterable[ByteSpan]) -> "Pieces":
        """All bytes of `gaps`, which are in order and apart."""
        return cls(deque(gap for gap in gaps if len(gap)))

    def __bool__(self) -> bool:
        return bool(self._gaps)

    @property
    def left_bytes(self) -> int:
        """What nobody has taken yet."""
        return sum(map(len, self._gaps))

    def take(self, *, shares: int, at_most: int) -> ByteSpan:
        """The next piece: one of `shares` equal ones of what is left, within bounds, and of one gap.

        Raises:
            IndexError: nothing is left.
        """
        gap = self._gaps.popleft()
        size_bytes = min(max((self.left_bytes + len(gap)) // shares, LEAST_BYTES), at_most)
        if len(gap) <= size_bytes:
            return gap
        self._gaps.appendleft(ByteSpan(gap.start + size_bytes, gap.stop))
        return ByteSpan(gap.start, gap.start + size_bytes)

    def reach(self, start: int) -> int:
        """The end of the run of bytes from `start` on that nobody has taken; `start` if it is empty."""
        return self._gaps[0].stop if self._gaps and self._gaps[0].start == start else start
