"""Sets of bytes, whatever the order they arrive in."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.byte_spans import ByteSpan, ByteSpans

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


@given(SPANS, st.integers(0, 70), st.integers(0, 70))
def test_spans_are_the_set_of_their_bytes(added: list[tuple[int, int]], total: int, at: int) -> None:
    spans, there = ByteSpans(), set[int]()
    for start, stop in added:
        spans.add(start, stop)
        there |= set(range(start, stop))
    assert {byte for span in spans for byte in range(span.start, span.stop)} == there
    assert spans.total_bytes == len(there)
    lacking = {byte for gap in spans.missing(total) for byte in range(gap.start, gap.stop)}
    assert lacking == set(range(total)) - there
    reach = spans.reach(at)
    assert set(range(at, reach)) <= there
    assert reach not in there


@given(SPANS)
def test_spans_neither_overlap_nor_touch(added: list[tuple[int, int]]) -> None:
    spans = ByteSpans.of(ByteSpan(*each) for each in added)
    kept = list(spans)
    assert all(one.stop < other.start for one, other in itertools.pairwise(kept))
    assert all(len(span) > 0 for span in kept)
