"""Texts that people read must not carry passwords: URLs are masked before they are shown."""

import re

MASK = "***"

# User information of a URL inside running text: from "://" to the last "@" before a "/", a quote or a space.
_USER_INFO = re.compile(r"""://(?:([^\s/"'<>@:]*):)?[^\s/"'<>]*@""")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)")


def mask_url(text: str) -> str:
    """`text` with the password (or the token that stands alone) of every URL in it replaced by `***`."""
    return _USER_INFO.sub(lambda found: f"://{found[1] + ':' if found[1] else ''}{MASK}@", text)


def mask_url_value(text: str) -> str:
    """A value that should be one URL, or several with commas: everything before a host is replaced.

    Stricter than `mask_url`, because the value may be wrong: no scheme, or a password with an unescaped
    `/` or `,` in it.
    """
    pieces = _SCHEME.split(text)
    return "".join(f"{MASK}@{piece.rpartition('@')[2]}" if "@" in piece else piece for piece in pieces)


def one_line(text: str, *, limit: int = 0) -> str:
    """`text` with control characters written as escapes, cut to `limit` characters where one is given."""
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return f"{line[: limit - 3]}..." if limit and len(line) > limit else line
