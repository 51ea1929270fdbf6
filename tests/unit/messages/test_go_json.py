"""Our reading and writing against the answers Go itself gave (tests/golden/go/recorded.json)."""

import json

import pytest

from localai_worker.domain.errors import MalformedMessage
from localai_worker.domain.messages.error_text import go_quote
from localai_worker.domain.messages.writing import encode_object

from .catalogue import EVERY_KIND
from .goldens import GOLDEN

KINDS = {kind.__name__: kind for kind in EVERY_KIND}
CASES = json.loads((GOLDEN / "go" / "recorded.json").read_text())


def ours(ask: str, text: bytes) -> bytes | None:
    """What we make of one recorded question; None for a refusal."""
    if ask == "string":
        return encode_object({"v": text.decode("utf-8", "surrogateescape")})[5:-1]
    if ask == "number":
        return encode_object({"v": float(text)})[5:-1]
    if ask == "quote":
        return go_quote(text.decode("utf-8", "surrogateescape")).encode()
    try:
        return KINDS[ask].from_wire(text).to_wire()
    except MalformedMessage:
        return None


@pytest.mark.parametrize("ask", sorted({case["ask"] for case in CASES}))
def test_we_answer_as_go_does(ask: str) -> None:
    cases = [case for case in CASES if case["ask"] == ask]
    assert len(cases) >= 20
    for case in cases:
        go = case["bytes"].encode("latin-1") if "bytes" in case else None
        assert ours(ask, case["text"].encode("latin-1")) == go, case


def test_a_number_json_cannot_carry_is_a_bug_of_the_caller() -> None:
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON cannot carry"):
            encode_object({"percentage": number})


def test_a_value_json_cannot_carry_is_a_bug_of_the_caller() -> None:
    with pytest.raises(TypeError, match="cannot carry a set"):
        encode_object({"keys": {"a"}})
