"""One JSON document as the Go frontend parses it: its fields found by name in any letter case.

Source: the `encoding/json` package behind LocalAI core/services/messaging/subjects.go.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import MalformedMessage

_SHOWN_DIGITS = 32
_DEEPEST = 100  # no message nests deeper than 3; Go allows 10,000


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number as it was written: Go tells `1` from `1.0` and `1e0` when it wants an integer."""

    literal: str


class Fields:
    """One decoded JSON object: every pair in the order it came, found by name in any letter case."""

    __slots__ = ("_values", "pairs")

    def __init__(self, pairs: Sequence[tuple[str, "JsonValue"]] = ()) -> None:
        self.pairs = pairs
        self._values: dict[str, list[JsonValue]] = {}
        for name, value in pairs:
            self._values.setdefault(_folded(name), []).append(value)

    def values(self, name: str) -> Sequence["JsonValue"]:
        """Every value sent under `name` (lower case), in order; Go decodes each, so each must be sound."""
        return self._values.get(name, ())


JsonValue: TypeAlias = bool | str | Number | list["JsonValue"] | Fields | None


def decode_object(payload: bytes) -> Fields:
    """The fields of the one JSON object in `payload`; a `null` document has none.

    Invalid UTF-8 inside a string reads as U+FFFD, one for each byte.

    Raises:
        MalformedMessage: `payload` is empty, is not exactly one JSON value, or that is no object.
    """
    document = _parse(payload)
    if document is None:
        return Fields()
    if not isinstance(document, Fields):
        raise MalformedMessage(f"want a JSON object, got {kind_of(document)}")
    return document


def decode_object_list(payload: bytes) -> list[Fields]:
    """The objects of the JSON array in `payload`; `null`, Go's empty slice, has none.

    Raises:
        MalformedMessage: `payload` is not exactly one JSON value, or that is no array of objects.
    """
    document = _parse(payload)
    if document is None:
        return []
    if not isinstance(document, list):
        raise MalformedMessage(f"want a JSON array, got {kind_of(document)}")
    return [_element(item, at) for at, item in enumerate(document)]


def without_surrogates(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate, which is what an undecodable byte or a half escape left."""
    return _LONE_SURROGATE.sub("\ufffd", text)


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def kind_of(value: JsonValue) -> str:
    """What `value` is; strings are not shown, for they may be secrets."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return "a string"
        case Number(literal):
            return f"the number {literal[:_SHOWN_DIGITS]}{'...' if len(literal) > _SHOWN_DIGITS else ''}"
        case list():
            return "a list"
        case Fields():
            return "an object"


def _element(item: JsonValue, at: int) -> Fields:
    if item is None:
        return Fields()
    if not isinstance(item, Fields):
        raise MalformedMessage(f"element {at}: want an object, got {kind_of(item)}")
    return item


def _parse(payload: bytes) -> JsonValue:
    # surrogateescape keeps each undecodable byte as one lone surrogate, which the readers replace by
    # U+FFFD: one for each byte, as Go does, where "replace" would give one for each broken sequence.
    text = payload.decode("utf-8", "surrogateescape")
    if not text.strip(" \t\r\n"):
        raise MalformedMessage("unexpected end of JSON input")
    if _is_too_deep(text):
        raise MalformedMessage(f"the JSON is nested more than {_DEEPEST} levels deep")
    try:
        document: JsonValue = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise MalformedMessage(f"{error.msg} at character {error.pos}") from error
    return document


def _is_too_deep(text: str) -> bool:
    # The decoder recurses in C. Its own limit is a RecursionError at best: in a thread with a small
    # stack some Python versions crash before they notice.
    if text.count("[") + text.count("{") <= _DEEPEST:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > _DEEPEST:
            return True
    return False


_BRACKET = re.compile(r"[\[\]{}]")
# An unterminated string ends with the text: to give it up and try anew at every quote would be quadratic.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


def _refuse_constant(name: str) -> None:
    raise MalformedMessage(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(
    object_pairs_hook=Fields, parse_int=Number, parse_float=Number, parse_constant=_refuse_constant
)


def _folded(name: str) -> str:
    # The two letters outside ASCII that Go folds onto ASCII ones are the long s and the Kelvin sign,
    # and lower() knows only the latter.
    return name.replace("\u017f", "s").lower()
