"""Go's values: what LocalAI accepts we accept, and what it does not, we explain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.app.go_values import WrongValue, parse_bool, parse_duration_s, parse_int


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("+0", 0.0),
        ("-0", 0.0),
        ("0s", 0.0),
        ("10s", 10.0),
        ("+10s", 10.0),
        ("-10s", -10.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("1m1m", 120.0),
        ("1h2m3s4ms5us6ns", 3723.004005006),
        ("3µs", 3e-6),
        ("3μs", 3e-6),
        ("100ns", 1e-7),
        ("0.0000000001s", 0.0),  # finer than a nanosecond
        ("0." + "0" * 400 + "1s", 0.0),
        ("00000000000000000000000000000001s", 1.0),
        ("2562047h", 2562047 * 3600.0),
    ],
)
def test_a_go_duration_reads_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "-",
        "+",
        "s",
        ".s",
        "1d",
        "1 s",
        " 1s",
        "1s ",
        "10sec",
        "--1s",
        "1s-1s",
        "1,5s",
        "٣s",
        "1e3s",
    ],
)
def test_what_is_no_go_duration_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(WrongValue, match="like 10s or 1m30s") as caught:
        parse_duration_s(text)
    assert caught.value.text == text


@pytest.mark.parametrize("text", ["2562048h", "9" * 30 + "ns", "1" * 5000 + "h"])
def test_a_duration_longer_than_go_holds_is_refused(text: str) -> None:
    with pytest.raises(WrongValue, match="at most 2562047h"):
        parse_duration_s(text)


_units = st.sampled_from([("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6)])


@given(
    st.lists(st.tuples(st.integers(0, 9999), _units), min_size=1, max_size=5), st.sampled_from(["", "+", "-"])
)
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, tuple[str, float]]], sign: str) -> None:
    text = sign + "".join(f"{count}{unit}" for count, (unit, _) in parts)
    total_s = sum(count * unit_s for count, (_, unit_s) in parts)
    assert parse_duration_s(text) == pytest.approx(-total_s if sign == "-" else total_s, abs=1e-6)


@given(st.text())
def test_any_text_is_a_duration_or_a_wrong_value(text: str) -> None:
    try:
        seconds = parse_duration_s(text)
    except WrongValue:
        return
    assert abs(seconds) <= 2**63 / 1e9


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-0", 0),
        ("50100", 50100),
        ("+5", 5),
        ("-5", -5),
        ("1_000", 1000),
        ("0x10", 16),
        ("0X1f", 31),
        ("0x_1f", 31),
        ("0b11", 3),
        ("0o17", 15),
        ("017", 15),
        ("0_17", 15),
        ("-017", -15),
        ("00", 0),
        ("0" * 200 + "7", 7),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("0x7fffffffffffffff", 2**63 - 1),
    ],
)
def test_a_go_integer_literal_reads_as_its_value(text: str, value: int) -> None:
    assert parse_int(text) == value


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "abc", "1.0", "1e3", "08", "0x", "1__0", "_1", "1_", "0_", "٣", "--1", "0b2", "0o8"],
)
def test_what_is_no_integer_literal_is_refused(text: str) -> None:
    with pytest.raises(WrongValue, match="a whole number, like 60000"):
        parse_int(text)


@pytest.mark.parametrize("text", ["9223372036854775808", "-9223372036854775809", "9" * 5000, "0x" + "f" * 17])
def test_an_integer_beyond_64_bits_is_refused(text: str) -> None:
    with pytest.raises(WrongValue, match="64 bits"):
        parse_int(text)


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_64_bit_number_reads_back_in_every_base(value: int) -> None:
    sign, size = ("-" if value < 0 else ""), abs(value)
    for text in (f"{value}", f"{value:_}", f"{sign}{size:#x}", f"{sign}{size:#o}", f"{sign}0{size:o}"):
        assert parse_int(text) == value


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "1", "yes", "YES"])
def test_kongs_words_for_true(text: str) -> None:
    assert parse_bool(text) is True


@pytest.mark.parametrize("text", ["false", "FALSE", "0", "no", "No"])
def test_kongs_words_for_false(text: str) -> None:
    assert parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "on", "off", "t", "2", "y", " true"])
def test_other_words_are_no_switch(text: str) -> None:
    with pytest.raises(WrongValue, match="true, 1, yes, false, 0 or no"):
        parse_bool(text)
