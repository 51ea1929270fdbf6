"""Error texts as the wire wants them: never empty, names quoted as Go does, none too big for the bus."""

from bisect import bisect_right

from .writing import written_size


def told(error: str) -> str:
    """`error`, or words for an empty one: the frontend takes an empty error text for a success."""
    return error or "it failed and left no error text"


def go_quote(text: str) -> str:
    r"""`text` as Go's `%q` prints it: quoted, with what cannot be printed as `\n`, `\x7f`, `\u00ad`."""
    return '"' + "".join(map(_quoted_character, text)) + '"'


def cap_error(text: str, limit_bytes: int) -> str:
    """`text` shortened to take at most `limit_bytes` inside a reply, by dropping its middle.

    The cause stands at the front of an error text and the last stderr lines at its end, so both stay;
    the cut is marked with the number of UTF-8 bytes that went. No character is cut in two. Where not
    even the mark fits, only the front stays. A bus drops what exceeds its maximum payload, and the
    frontend would wait out its timeout for it.
    """
    if len(text) <= limit_bytes and written_size(text) <= limit_bytes:
        return text
    mark = len(_CUT.format(len(text.encode(errors="replace"))))  # the final number has no more digits
    if mark > limit_bytes:
        return text[: _fitting(text, limit_bytes)]
    room = limit_bytes - mark
    head = text[: _fitting(text, room // 2)]
    rest = text[len(head) :][::-1]
    tail = rest[: _fitting(rest, room - written_size(head))][::-1]
    cut = text[len(head) : len(text) - len(tail)]
    return head + _CUT.format(len(cut.encode(errors="replace"))) + tail


_CUT = " ... [{} bytes cut] ... "


def _fitting(text: str, limit_bytes: int) -> int:
    """The greatest number of characters at the front of `text` that take at most `limit_bytes`."""
    candidates = range(min(len(text), limit_bytes) + 1)  # a character takes at least one byte
    return bisect_right(candidates, limit_bytes, key=lambda count: written_size(text[:count])) - 1


_SHORT_QUOTES = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f",
    "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip


def _quoted_character(character: str) -> str:
    if character in _SHORT_QUOTES:
        return _SHORT_QUOTES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that was no UTF-8, as os.fsdecode keeps it
        return f"\\x{code - 0xDC00:02x}"
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
