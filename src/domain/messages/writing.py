"""JSON as the Go frontend writes it, byte for byte.

Compact, fields in struct order, zero values left out, `<`, `>` and `&` escaped, whole floats without a
fraction. Source: the `encoding/json` package behind LocalAI core/services/messaging/client.go.
"""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import cast

EMPTY_REQUEST = b"{}"
"""The body of a request that says nothing: backend.list, models.running, files.temp."""

NO_BODY = b"null"
"""What the frontend's `Publish(subject, nil)` puts on the wire: node stop, unforced stop-all."""


def encode_object(fields: Mapping[str, object]) -> bytes:
    """`fields` as one JSON object in the given order; thin it with `without_zeros` first.

    Values may be None, bool, int, float, str, lists, tuples and mappings of these. Lone surrogates become the
    escape of U+FFFD, and backspace and form feed their short escapes, as Go writes them since 1.22.

    Raises:
        ValueError: a float is not finite; JSON has no word for it.
    """
    return _written(fields).encode()


def encode_list(items: Sequence[object]) -> bytes:
    """`items` as one JSON array, under the rules of `encode_object`."""
    return _written(list(items)).encode()


def without_zeros(fields: Mapping[str, object], *, always: Collection[str] = ()) -> dict[str, object]:
    """`fields` less those that are None, false, zero or empty, unless named in `always`."""
    return {name: value for name, value in fields.items() if value or name in always}


def written_size(text: str) -> int:
    """How many bytes `text` takes between the quotes of a JSON string."""
    return len(_written(text).encode()) - 2


def _written(value: object) -> str:
    """The standard encoder's text, with what Go writes otherwise put right: all of that is inside strings,
    but for floats.
    """
    if _has_float(value):
        return _written_slowly(value)
    written = _ENCODER.encode(value)
    return _ESCAPED_BY_GO.sub(_escape, written) if _ESCAPED_BY_GO.search(written) else written


def _has_float(value: object) -> bool:
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return False
    if kind is list or kind is tuple:
        return any(map(_has_float, cast("Sequence[object]", value)))
    if isinstance(value, Mapping):
        return any(map(_has_float, value.values()))
    return isinstance(value, float)


def _other(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a message cannot carry a {type(value).__name__}")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_other)


def _written_slowly(value: object) -> str:
    match value:
        case float():
            return _written_float(value)
        case Mapping():
            return "{" + ",".join(f"{_written(str(k))}:{_written(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_written, value)) + "]"
        case _:
            return _written(value)


# Beyond what JSON itself asks to escape. Everything else that Python escapes, Go escapes the same way.
_ESCAPED_BY_GO = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def _escape(character: re.Match[str]) -> str:
    code = ord(character[0])
    return "\\ufffd" if 0xD800 <= code <= 0xDFFF else f"\\u{code:04x}"


def _written_float(value: float) -> str:
    """The shortest digits that read back as `value`; exponents only below 1e-6 and from 1e21 on, as in Go."""
    if not math.isfinite(value):
        raise ValueError(f"JSON cannot carry the number {value}")
    if value and not 1e-6 <= abs(value) < 1e21:
        return repr(value).replace("e-0", "e-")
    return f"{Decimal(repr(value)).normalize():f}"
