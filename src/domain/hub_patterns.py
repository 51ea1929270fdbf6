"""Patterns that choose files of a repository: `*.json`, `onnx/*`, `model-0000[1-3]-of-?.safetensors`."""

import re
from collections.abc import Sequence


class BadPattern(ValueError):
    """Text that is no pattern; the message says why."""


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether one of `patterns` is meant by `path`.

    `*` and `?` stop at a `/`. A pattern without `/` also means files of that name in any directory.
    Source: Go's path.Match as LocalAI pkg/huggingface-api/snapshot.go uses it.

    Raises:
        BadPattern: see `check_pattern`.
    """
    name = path.rpartition("/")[2]
    for pattern in patterns:
        wanted = _compiled(pattern)
        if wanted.fullmatch(path) or ("/" not in pattern and wanted.fullmatch(name)):
            return True
    return False


def check_pattern(pattern: str) -> None:
    r"""Raise BadPattern unless `pattern` can be used: relative, no `..`, no `\`, no NUL, `[` closed."""
    if not pattern or pattern.startswith("/"):
        raise BadPattern("it must be a relative path")
    if "\\" in pattern or "\0" in pattern:
        raise BadPattern("it holds a backslash or a NUL")
    if ".." in pattern.split("/"):
        raise BadPattern("it climbs")
    _compiled(pattern)


def _compiled(pattern: str) -> "re.Pattern[str]":
    return re.compile("".join(_pieces(pattern)), re.DOTALL)


def _pieces(pattern: str) -> list[str]:
    pieces, at = [], 0
    while at < len(pattern):
        character = pattern[at]
        if character == "[":
            piece, at = _class(pattern, at + 1)
            pieces.append(piece)
            continue
        pieces.append({"*": "[^/]*", "?": "[^/]"}.get(character) or re.escape(character))
        at += 1
    return pieces


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The regular expression of the character class whose text begins at `at`, and where it ends."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while pattern[at : at + 1] != "]" or not ranges:
        low, at = _bound(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _bound(pattern, at + 1)
        if low <= high:  # a range that runs backwards means nothing, which is no mistake
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        elif not ranges:
            ranges.append("")
    inside = "".join(ranges)
    if not inside:
        return ("." if negated else r"(?!)"), at + 1
    return f"[{'^' if negated else ''}{inside}]", at + 1


def _bound(pattern: str, at: int) -> tuple[str, int]:
    if at >= len(pattern):
        raise BadPattern("a [ is not closed")
    if pattern[at] in "-]":
        raise BadPattern(f"{pattern[at]} stands where a character of [...] is wanted")
    return pattern[at], at + 1
