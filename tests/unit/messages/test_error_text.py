"""Error texts that fit the bus, and Go's quoting."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localai_worker.domain.messages.backend import BackendInstallReply
from localai_worker.domain.messages.error_text import cap_error, go_quote
from localai_worker.domain.messages.writing import written_size

MARK = re.compile(r" \.\.\. \[(\d+) bytes cut\] \.\.\. ")


def test_a_text_that_fits_is_left_alone() -> None:
    assert cap_error("no backend found", 16) == "no backend found"


def test_a_long_text_keeps_its_cause_and_its_last_lines() -> None:
    """N-B30: upstream sends the whole stderr tail, and a reply too big for the bus is lost."""
    text = "died during startup. Last stderr:\n" + "noise\n" * 1000 + "CUDA out of memory"
    capped = cap_error(text, 200)
    assert capped.startswith("died during startup. Last stderr:\n")
    assert capped.endswith("CUDA out of memory")
    assert written_size(capped) <= 200
    head, count, tail = MARK.split(capped)
    assert len(head) + int(count) + len(tail) == len(text)


def test_what_the_wire_escapes_counts_as_it_is_written() -> None:
    capped = cap_error("<" * 1000, 300)
    assert len(BackendInstallReply.failed(capped).to_wire()) <= 300 + len(b'{"success":false,"error":""}')


def test_where_not_even_the_mark_fits_the_front_stays() -> None:
    assert cap_error("abcdefghij", 3) == "abc"
    assert cap_error("ééé", 3) == "é"
    assert cap_error("abc", 0) == ""


@settings(deadline=None)
@given(
    text=st.text(max_size=400) | st.text(alphabet="<é模😀\x00\\\ud800x", max_size=400),
    limit_bytes=st.integers(0, 500),
)
def test_a_capped_text_fits_and_is_whole_characters_of_the_text(text: str, limit_bytes: int) -> None:
    capped = cap_error(text, limit_bytes)
    assert written_size(capped) <= limit_bytes
    if capped == text or not (parts := MARK.search(capped)) or MARK.search(text):
        assert text.startswith(capped)
        return
    head, tail = capped[: parts.start()], capped[parts.end() :]
    assert text.startswith(head)
    assert text.endswith(tail)
    size = len(text.encode(errors="replace"))
    assert int(parts.group(1)) == size - len((head + tail).encode(errors="replace"))


@settings(deadline=None)
@given(text=st.text(min_size=200, alphabet="ab<é😀"), limit_bytes=st.integers(60, 150))
def test_a_capped_text_wastes_no_more_than_two_characters(text: str, limit_bytes: int) -> None:
    assert written_size(cap_error(text, limit_bytes)) > limit_bytes - 2 * written_size("<")


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("nope", '"nope"'),
        ('say "hi" \\', r'"say \"hi\" \\"'),
        ("a\n\t\x00\x7f\u00ad\u2028\U000e0001", r'"a\n\t\x00\x7f\u00ad\u2028\U000e0001"'),
        ("naïve 模型 😀 `x`", '"naïve 模型 😀 `x`"'),
        ("a\udcffb\ud800", '"a\\xffb\ufffd"'),
    ],
)
def test_text_is_quoted_as_go_quotes_it(text: str, quoted: str) -> None:
    assert go_quote(text) == quoted
