"""The order in which LocalAI writes the keys of a YAML mapping: `step_2` goes before `step_10`."""

import re
from collections.abc import Iterable
from functools import cmp_to_key

_NUMBER = re.compile(r"[0-9]+")


def in_yaml_order(keys: Iterable[str]) -> list[str]:
    """`keys` as the yaml.v3 package sorts them.

    Where two differ first, letters go by code point, numbers by value; a letter goes after anything else,
    but before it right behind a digit.
    """
    return sorted(keys, key=cmp_to_key(_compare))


def _compare(one: str, other: str) -> int:
    """Less than 0 if `one` goes first, more than 0 if `other` does."""
    pairs = enumerate(zip(one, other, strict=False))
    at = next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
    common = one[:at]
    one_rest, other_rest = one[at:], other[at:]
    if not one_rest or not other_rest:
        return len(one) - len(other)
    first, second = one_rest[0], other_rest[0]
    if first.isalpha() and second.isalpha():
        return ord(first) - ord(second)
    if first.isalpha() or second.isalpha():
        letter_first = common[-1:].isdecimal()
        return -1 if first.isalpha() == letter_first else 1
    return _compare_numbers(common, one_rest, other_rest)


def _compare_numbers(common: str, one: str, other: str) -> int:
    """Of two that go on without a letter: by the number at their beginning, then by its length."""
    one_digits, other_digits = _digits(one), _digits(other)
    begun = common[len(common.rstrip("0123456789")) :].strip("0")
    lead = "1" if begun and "0" in {one[0], other[0]} else ""  # zeros count in a number that began before
    one_value, other_value = _value(lead + one_digits), _value(lead + other_digits)
    if one_value != other_value:
        return -1 if one_value < other_value else 1
    return len(one_digits) - len(other_digits) or ord(one[0]) - ord(other[0])


def _digits(text: str) -> str:
    found = _NUMBER.match(text)
    return found[0] if found else ""


def _value(digits: str) -> tuple[int, str]:
    """What numbers of any length compare by."""
    number = digits.lstrip("0")
    return len(number), number
