"""Sizes as people write them."""

import re

from .go_values import WrongValue

_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}ib": 2 ** (10 * power) for power, letter in enumerate("kmgt", start=1)}
_UNITS |= {f"{letter}b": 10 ** (3 * power) for power, letter in enumerate("kmgt", start=1)}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)\s*([A-Za-z]*)")


def parse_size_bytes(text: str) -> int:
    """Bytes of a size: `512MiB` and `20GiB` count in 1024s, `500MB` in 1000s, a bare number in bytes.

    Raises:
        WrongValue: it is something else.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or found[2].lower() not in _UNITS:
        raise WrongValue(text, "a size, like 20GiB, 512MiB, 500MB or 0")
    return round(float(found[1]) * _UNITS[found[2].lower()])
