"""Which bytes of a file are there, when they arrive in any order."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class ByteSpan:
    """The bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass
class ByteSpans:
    """A set of bytes, kept as spans in order that neither overlap nor touch."""

    _spans: list[ByteSpan] = field(default_factory=list)

    @classmethod
    def of(cls, spans: Iterable[ByteSpan]) -> "ByteSpans":
        """The union of `spans`."""
        made = cls()
        for span in spans:
            made.add(span.start, span.stop)
        return made

    def add(self, start: int, stop: int) -> None:
        """Note that the bytes from `start` up to `stop` are there; an empty span is nothing."""
        if start >= stop:
            return
        # The first span that ends at or after `start` is the first that may be merged.
        first = bisect_left(self._spans, start, key=lambda span: span.stop)
        last = first
        while last < len(self._spans) and self._spans[last].start <= stop:
            start = min(start, self._spans[last].start)
            stop = max(stop, self._spans[last].stop)
            last += 1
        self._spans[first:last] = [ByteSpan(start, stop)]

    def reach(self, start: int) -> int:
        """The end of the unbroken run of bytes from `start` on; `start` itself when it is not there."""
        at = bisect_left(self._spans, start + 1, key=lambda span: span.stop)
        if at < len(self._spans) and self._spans[at].start <= start:
            return self._spans[at].stop
        return start

    def missing(self, total_bytes: int) -> tuple[ByteSpan, ...]:
        """What a file of `total_bytes` still lacks, in order."""
        gaps, at = [], 0
        for span in self._spans:
            if span.start >= total_bytes:
                break
            if span.start > at:
                gaps.append(ByteSpan(at, span.start))
            at = span.stop
        if at < total_bytes:
            gaps.append(ByteSpan(at, total_bytes))
        return tuple(gaps)

    @property
    def total_bytes(self) -> int:
        """How many bytes are there."""
        return sum(map(len, self._spans))

    def __iter__(self) -> Iterator[ByteSpan]:
        return iter(tuple(self._spans))
