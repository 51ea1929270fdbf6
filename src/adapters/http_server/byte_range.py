"""The `Range` of a download: which part of a file a client asks for."""

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`count` bytes from byte `start` on."""

    start: int
    count: int

    def content_range(self, size_bytes: int) -> str:
        """As the answer says it."""
        return f"bytes {self.start}-{self.start + self.count - 1}/{size_bytes}"


class Unsatisfiable(ValueError):
    """A range that lies behind the end of the file."""


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The one range that `header` asks for of a file of `size_bytes`; None means the whole file.

    What is no range of bytes, and several at once, count as not asked (RFC 9110, 14.2).

    Raises:
        Unsatisfiable: the range holds no byte of the file.
    """
    match = _ONE_RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(size_bytes - int(last), 0), size_bytes - 1
    else:
        start, end = int(first), min(int(last) if last else size_bytes - 1, size_bytes - 1)
        if last and int(last) < start:
            return None
    if start > end:
        raise Unsatisfiable
    return ByteRange(start, end - start + 1)
