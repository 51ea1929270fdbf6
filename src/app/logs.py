"""Logging of the worker: lines to stderr, as people, log collectors or JSON readers want them."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from ..domain.masking import mask_url

TRACE = 5

_LEVELS = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}
# They report every request or connection at INFO, which for us is detail.
_CHATTY = ("grpc", "httpcore", "httpx", "nats", "uvicorn", "websockets")
_PACKAGE = __package__.partition(".")[0] + "."
_REPEATS_SHOWN_AFTER_S = 60.0


def set_up_logging(*, level: str, line_format: str, dedup: bool | None, stream: TextIO | None = None) -> None:
    """Send all logging to `stream` (default: stderr), replacing what an earlier call set up.

    `level`: error, warn, info, debug or trace. `line_format`: default, text (key=value) or json (one
    object a line). `dedup`: repeated lines appear once, then as a count; None: only on a terminal.
    Passwords in URLs are masked in every line.
    Source: LocalAI core/cli/context (the flags' names and values).
    """
    stream = stream or sys.stderr
    logging.addLevelName(TRACE, "TRACE")
    handler = logging.StreamHandler(stream)
    if stream.isatty() if dedup is None else dedup:
        handler = RepeatFoldingHandler(stream)
    handler.setFormatter(LineFormatter({"text": _key_values, "json": _json}.get(line_format, _readable)))
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, LineFormatter):
            root.removeHandler(old)
            old.close()
    root.addHandler(handler)
    root.setLevel(_LEVELS[level])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.NOTSET if _LEVELS[level] < logging.INFO else logging.WARNING)


class LineFormatter(logging.Formatter):
    """Gives every record one line (`write` says how) from its time, level, logger, message and traceback."""

    def __init__(self, write: Callable[[str, str, str, str, str], str]) -> None:
        super().__init__()
        self._write = write

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        traces = [self.formatException(record.exc_info)] if record.exc_info else []
        traces += [record.stack_info] if record.stack_info else []
        return self._write(
            time.replace("+00:00", "Z"),
            record.levelname,
            record.name.removeprefix(_PACKAGE),
            mask_url(record.getMessage()),
            mask_url("\n".join(traces)),
        )


class RepeatFoldingHandler(logging.StreamHandler[TextIO]):
    """Writes a repeated line once; how often it came follows with the next other line, or each minute."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._last: logging.LogRecord | None = None
        self._key: tuple[str, int, str] | None = None
        self._repeats = 0
        self._shown_at_s = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            key = (record.name, record.levelno, record.getMessage())
        except Exception:  # noqa: BLE001  (the arguments do not fit the text: logging reports it, nothing breaks)
            self.handleError(record)
            return
        if key == self._key and not record.exc_info:
            self._last = record
            self._repeats += 1
            if record.created - self._shown_at_s >= _REPEATS_SHOWN_AFTER_S:
                self._write_repeats()
            return
        self._write_repeats()
        self._key, self._shown_at_s = key, record.created
        super().emit(record)

    def close(self) -> None:
        self._write_repeats()
        super().close()

    def _write_repeats(self) -> None:
        if self._last is None:
            return
        counted = logging.makeLogRecord(self._last.__dict__)
        counted.msg, counted.args = f"{self._last.getMessage()} (repeated {self._repeats} times)", None
        self._last, self._repeats, self._shown_at_s = None, 0, counted.created
        super().emit(counted)


def _readable(time: str, level: str, logger: str, message: str, trace: str) -> str:
    text = "\n".join(part for part in (message, trace) if part)
    return f"{time} {level:<7} {logger}: {_harmless(text)}"


def _key_values(time: str, level: str, logger: str, message: str, trace: str) -> str:
    pairs = {"time": time, "level": level, "logger": logger, "msg": message, "trace": trace}
    return " ".join(f"{key}={_quoted(value)}" for key, value in pairs.items() if value or key == "msg")


def _json(time: str, level: str, logger: str, message: str, trace: str) -> str:
    line = {"time": time, "level": level, "logger": logger, "msg": message}
    return json.dumps(line | ({"trace": trace} if trace else {}))


def _quoted(value: str) -> str:
    plain = value.isprintable() and value and not any(char in value for char in ' "=')
    return value if plain else json.dumps(value)


def _harmless(text: str) -> str:
    """`text` without escape sequences; lines after the first are indented, so that none can pass for ours."""
    lines = (
        "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in line)
        for line in text.split("\n")
    )
    return "\n    ".join(lines)
