"""Which bytes a lane fetches next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.byte_spans import ByteSpan
from localai_worker.domain.transfer_pieces import LEAST_BYTES, MIB, Pieces


@given(
    sizes=st.lists(st.integers(0, 200 * MIB), min_size=1, max_size=8),
    shares=st.integers(1, 32),
    at_most=st.integers(LEAST_BYTES, 64 * MIB),
)
def test_every_byte_is_handed_out_once_and_in_order(sizes: list[int], shares: int, at_most: int) -> None:
    gaps, at = [], 7
    for size_bytes in sizes:
        gaps.append(ByteSpan(at, at + size_bytes))
        at += size_bytes + 1
    pieces, taken = Pieces.of(gaps), []
    while pieces:
        taken.append(pieces.take(shares=shares, at_most=at_most))
    assert all(0 < len(piece) <= at_most for piece in taken)
    bounds = {gap.start for gap in gaps if len(gap)}
    joined: list[ByteSpan] = []
    for piece in taken:
        if piece.start in bounds:
            joined.append(piece)
        else:
            assert piece.start == joined[-1].stop
            joined[-1] = ByteSpan(joined[-1].start, piece.stop)
    assert joined == [gap for gap in gaps if len(gap)]
    with pytest.raises(IndexError):
        pieces.take(shares=shares, at_most=at_most)


def test_pieces_become_smaller_towards_the_end() -> None:
    pieces = Pieces.of([ByteSpan(0, 192 * MIB)])
    sizes = []
    while pieces:
        sizes.append(len(pieces.take(shares=32, at_most=8 * MIB)) / MIB)
    assert sizes[0] == 6
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-2] == LEAST_BYTES / MIB


def test_a_stream_may_reach_as_far_as_nobody_else_has_taken() -> None:
    pieces = Pieces.of([ByteSpan(0, 20 * MIB), ByteSpan(30 * MIB, 40 * MIB)])
    first = pieces.take(shares=1, at_most=8 * MIB)
    assert pieces.reach(first.stop) == 20 * MIB
    assert pieces.reach(25 * MIB) == 25 * MIB
    assert pieces.left_bytes == 22 * MIB
