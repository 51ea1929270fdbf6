"""Typed reading of message fields, with Go's rules for null, duplicates and number forms.

Of duplicates the last wins, but each must be of the right type. Null leaves a plain Go value as it was
and clears a pointer, slice or map. Every reader raises MalformedMessage, which names the field, what is
wanted and what came. Source: the `encoding/json` package behind LocalAI core/services/messaging/subjects.go.
"""

import math
import re
from collections.abc import Callable
from typing import TypeVar

from ..errors import MalformedMessage
from .document import Fields, JsonValue, Number, kind_of, without_surrogates

_INT32 = 2**31
_INT64 = 2**63
_LONGEST_INTEGER = 20  # characters of -2**63 and of 2**64-1; Python refuses to parse very long ones
_T = TypeVar("_T")


def read_text(fields: Fields, name: str) -> str:
    """The string `name`, `""` when absent or null; lone surrogates read as U+FFFD."""
    return _last(fields, name, _text) or ""


def read_optional_text(fields: Fields, name: str) -> str | None:
    """The string `name`, None when absent or null."""
    return _last(fields, name, _text, null_clears=True)


def read_bool(fields: Fields, name: str) -> bool:
    """The truth value `name`, False when absent or null; numbers and strings are refused."""
    return _last(fields, name, _bool) or False


def read_int32(fields: Fields, name: str) -> int:
    """The integer `name`, 0 when absent or null; `1.0`, `1e0` and what 32 bits cannot hold are refused."""
    return _last(fields, name, _int32) or 0


def read_int64(fields: Fields, name: str) -> int:
    """As `read_int32`, within 64 bits."""
    return _last(fields, name, _int64) or 0


def read_optional_int64(fields: Fields, name: str) -> int | None:
    """As `read_int64`, but None when absent or null."""
    return _last(fields, name, _int64, null_clears=True)


def read_uint64(fields: Fields, name: str) -> int:
    """The count `name`, 0 when absent or null; fractions, exponents and any minus sign are refused."""
    return _last(fields, name, _uint64) or 0


def read_optional_uint64(fields: Fields, name: str) -> int | None:
    """As `read_uint64`, but None when absent or null."""
    return _last(fields, name, _uint64, null_clears=True)


def read_float(fields: Fields, name: str) -> float:
    """The number `name`, 0.0 when absent or null; what a 64-bit float cannot hold is refused."""
    number = _last(fields, name, _float)
    return 0.0 if number is None else number  # "or" would lose the sign of -0


def read_object(fields: Fields, name: str) -> Fields:
    """The object `name`, without fields when absent or null."""
    return _last(fields, name, _object) or Fields()


def read_text_list(fields: Fields, name: str) -> list[str]:
    """The strings of the list `name`, empty when absent or null; a null element is `""`."""
    return _last(fields, name, _texts, null_clears=True) or []


def read_object_list(fields: Fields, name: str) -> list[Fields]:
    """The objects of the list `name`, empty when absent or null; a null element has no fields."""
    return _last(fields, name, _objects, null_clears=True) or []


def read_text_map(fields: Fields, name: str) -> dict[str, str]:
    """The string-to-string object `name`, empty when absent or null; duplicates of `name` merge, as in Go."""
    merged: dict[str, str] = {}
    for value in fields.values(name):
        if value is None:
            merged = {}
            continue
        for raw_key, text in _object(value, name).pairs:
            key = without_surrogates(raw_key)
            merged[key] = "" if text is None else _text(text, f"{name}.{key}")
    return merged


def _last(
    fields: Fields, name: str, read: Callable[[JsonValue, str], _T], *, null_clears: bool = False
) -> _T | None:
    """The last value sent under `name`; null leaves a plain Go value alone, clears a pointer or slice."""
    last: _T | None = None
    for value in fields.values(name):
        if value is not None:
            last = read(value, name)
        elif null_clears:
            last = None
    return last


def _text(value: JsonValue, name: str) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "a string")
    return without_surrogates(value)


def _bool(value: JsonValue, name: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "true or false")
    return value


def _object(value: JsonValue, name: str) -> Fields:
    if not isinstance(value, Fields):
        raise _wrong(name, value, "an object")
    return value


def _texts(value: JsonValue, name: str) -> list[str]:
    return [
        "" if item is None else _text(item, f"{name}[{at}]") for at, item in enumerate(_list(value, name))
    ]


def _objects(value: JsonValue, name: str) -> list[Fields]:
    return [
        Fields() if item is None else _object(item, f"{name}[{at}]")
        for at, item in enumerate(_list(value, name))
    ]


def _list(value: JsonValue, name: str) -> list[JsonValue]:
    if not isinstance(value, list):
        raise _wrong(name, value, "a list")
    return value


def _int32(value: JsonValue, name: str) -> int:
    return _integer(value, name, range(-_INT32, _INT32))


def _int64(value: JsonValue, name: str) -> int:
    return _integer(value, name, range(-_INT64, _INT64))


def _uint64(value: JsonValue, name: str) -> int:
    if isinstance(value, Number) and value.literal == "-0":  # an integer to Go, but not an unsigned one
        raise _wrong(name, value, "an integer without a sign")
    return _integer(value, name, range(2 * _INT64))


def _integer(value: JsonValue, name: str, allowed: range) -> int:
    if (
        isinstance(value, Number)
        and _INTEGER.fullmatch(value.literal)
        and (number := int(value.literal)) in allowed
    ):
        return number
    raise _wrong(name, value, f"an integer of {allowed.start} to {allowed.stop - 1}, written without . or e")


_INTEGER = re.compile(f"-?[0-9]{{1,{_LONGEST_INTEGER}}}")


def _float(value: JsonValue, name: str) -> float:
    if isinstance(value, Number) and math.isfinite(number := float(value.literal)):
        return number
    raise _wrong(name, value, "a number that a 64-bit float can hold")


def _wrong(name: str, value: JsonValue, wanted: str) -> MalformedMessage:
    return MalformedMessage(f'field "{name}": want {wanted}, got {kind_of(value)}')
