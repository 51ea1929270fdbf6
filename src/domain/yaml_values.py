"""What YAML scalars without quotes mean, for those who want numbers and truth values rather than texts."""

import math
import re
from typing import TypeAlias

from .ports.galleries import PlainText

YamlValue: TypeAlias = "bool | int | float | str | list[YamlValue] | dict[str, YamlValue] | None"

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = {
    f"{sign}{spelling}": float(f"{sign}{value}")
    for value, spellings in {"inf": (".inf", ".Inf", ".INF"), "nan": (".nan", ".NaN", ".NAN")}.items()
    for spelling in spellings
    for sign in (("", "+", "-") if value == "inf" else ("",))
}


def typed(value: object) -> YamlValue:
    """`value`, as `GalleryDocuments.parse` gives it, with its scalars as what YAML makes of them.

    `yes`, `no`, `on`, `off` and dates stay texts. Source: the yaml.v3 package that LocalAI reads with.
    """
    match value:
        case dict():
            return {str(key): typed(each) for key, each in value.items()}
        case list():
            return [typed(each) for each in value]
        case PlainText():
            return _scalar(str(value))
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def reads_otherwise(text: str) -> bool:
    """Whether `text` without quotes would be read as something else than this text."""
    return not isinstance(_scalar(text), str)


def _scalar(text: str) -> YamlValue:
    if text in _NULLS:
        return None
    if text in _TRUTHS:
        return _TRUTHS[text]
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return _SPECIAL.get(text, text)


def _integer(text: str) -> int | str:
    digits = text.replace("_", "")
    sign, body = (digits[0], digits[1:]) if digits[0] in "+-" else ("", digits)
    if len(body) > 1 and body[0] == "0" and body.isdigit():  # a leading 0 means octal here, as in Go
        body = f"0o{body[1:]}" if set(body) <= set("01234567") else body.lstrip("0") or "0"
    try:
        return int(sign + body, 0)
    except ValueError:  # `0x_`, or more digits than Python converts
        return text
