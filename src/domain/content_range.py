"""The `Content-Range` of an upload: which bytes of the file a request body carries."""

import re
from dataclasses import dataclass
from typing import Self

from .errors import WorkerError

_FORM = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)


@dataclass(eq=False)
class InvalidContentRange(WorkerError):
    """A `Content-Range` that says nothing usable."""

    header: str

    def __str__(self) -> str:
        form = "bytes <start>-<end>/<total> with start <= end < total"
        return f"invalid Content-Range {self.header[:100]!a}: expected {form}"


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Bytes `start` to `end`, both included, of a file of `total` bytes."""

    start: int
    end: int
    total: int

    @property
    def is_whole(self) -> bool:
        """Whether the body is the whole file."""
        return self.start == 0 and self.end == self.total - 1

    @classmethod
    def parse(cls, header: str) -> Self:
        """Read `bytes <start>-<end>/<total>`, all three decimal numbers.

        Source: LocalAI core/services/nodes/file_transfer_server.go (newer: resumed uploads).

        Raises:
            InvalidContentRange: another form, or not start <= end < total.
        """
        match = _FORM.fullmatch(header.strip())
        if match is None:
            raise InvalidContentRange(header)
        start, end, total = (int(number) for number in match.groups())
        if not start <= end < total:
            raise InvalidContentRange(header)
        return cls(start, end, total)
