"""What backends print, as the log routes tell it: a line, an array of lines, and the frames of the live view.

Source: LocalAI pkg/model/backend_log_store.go.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from .document import Fields
from .reading import read_text
from .wire import WireObject
from .writing import encode_list, encode_object

_FRACTION = re.compile(r"\.(\d+)")
_NO_TIME = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine(WireObject):
    """One line of a backend's output; `at` is aware, `stream` is `stdout` or `stderr`.

    Wire: `timestamp` in RFC 3339 with fraction and offset, `stream`, `text`; all three always.
    """

    at: datetime
    stream: str
    text: str

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            at=_time(read_text(fields, "timestamp")),
            stream=read_text(fields, "stream"),
            text=read_text(fields, "text"),
        )

    def to_fields(self) -> dict[str, object]:
        """What is written; Go writes a whole second without a fraction, and UTC as `Z`."""
        return {"timestamp": _rfc3339(self.at), "stream": self.stream, "text": self.text}


def log_lines_body(lines: Iterable[LogLine]) -> bytes:
    """The body of `/v1/backend-logs/{id}`: an array of lines, `[]` without any."""
    return encode_list([line.to_fields() for line in lines])


def initial_frame(lines: Iterable[LogLine]) -> bytes:
    """The first text frame of a live view: what was printed before it."""
    return encode_object({"type": "initial", "lines": [line.to_fields() for line in lines]})


def line_frame(line: LogLine) -> bytes:
    """Every further frame: one line."""
    return encode_object({"type": "line", "line": line.to_fields()})


def _rfc3339(time: datetime) -> str:
    text = time.isoformat()
    seconds, point, rest = text.partition(".")
    if point:
        fraction = rest[:6].rstrip("0")
        text = f"{seconds}.{fraction}{rest[6:]}"
    return text.removesuffix("+00:00") + ("" if time.utcoffset() else "Z")


def _time(text: str) -> datetime:
    """The time that `text` writes, cut to microseconds; year 1 where it writes none."""
    try:
        time = datetime.fromisoformat(_FRACTION.sub(lambda match: f".{match[1][:6]:0<6}", text))
    except ValueError:
        return _NO_TIME
    return time if time.tzinfo else time.replace(tzinfo=UTC)
