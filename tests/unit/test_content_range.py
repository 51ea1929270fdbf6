import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.content_range import ContentRange, InvalidContentRange


@pytest.mark.parametrize(
    ("header", "expected", "whole"),
    [
        ("bytes 0-9/10", ContentRange(0, 9, 10), True),
        ("bytes 0-0/1", ContentRange(0, 0, 1), True),
        ("bytes 0-4/10", ContentRange(0, 4, 10), False),
        ("bytes 5-9/10", ContentRange(5, 9, 10), False),
        (" bytes 0-9/10 ", ContentRange(0, 9, 10), True),
    ],
)
def test_a_range_is_read(header: str, expected: ContentRange, whole: bool) -> None:
    assert ContentRange.parse(header) == expected
    assert expected.is_whole is whole


@pytest.mark.parametrize(
    "header",
    [
        "bytes */10", "bytes 0-9/*", "bytes 0-9", "0-9/10", "items 0-9/10", "bytes=0-9/10", "bytes 9-0/10",
        "bytes 0-10/10", "bytes -1-9/10", "bytes 0-9/10, 10-19/20", "bytes 0-0/0", "bytes ٠-٩/١٠",
        "bytes 0x0-9/10", "bytes 0-9/" + "9" * 5000, "bytes  0-9/10", "\udcff",
    ],
)  # fmt: skip
def test_anything_else_is_invalid(header: str) -> None:
    with pytest.raises(InvalidContentRange, match=r"^invalid Content-Range") as caught:
        ContentRange.parse(header)
    assert len(str(caught.value)) < 250


@given(st.text(max_size=40))
def test_a_range_that_is_read_lies_within_its_total(header: str) -> None:
    try:
        read = ContentRange.parse(header)
    except InvalidContentRange:
        return
    assert 0 <= read.start <= read.end < read.total
