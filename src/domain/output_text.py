"""What a backend printed, as people can read it: bytes to lines, without colours and control characters."""

import re
from codecs import IncrementalDecoder, getincrementaldecoder
from dataclasses import dataclass, field

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LONGEST_LINE = 16 * 1024  # characters kept of a line whose end does not come


def plain(text: str) -> str:
    """`text` without escape sequences and control characters; tabs and line ends stay (N-B30)."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


@dataclass
class LineSplitter:
    """Cuts a stream of bytes into lines. Undecodable bytes are replaced; what a carriage return overwrites
    (progress bars) is dropped; a line that grows too long is cut in two.
    """

    _decoder: IncrementalDecoder = field(default_factory=lambda: getincrementaldecoder("utf-8")("replace"))
    _rest: str = ""

    def lines(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        *whole, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        while len(self._rest) > _LONGEST_LINE:
            whole.append(self._rest[:_LONGEST_LINE])
            self._rest = self._rest[_LONGEST_LINE:]
        return [_shown(line) for line in whole]

    def end(self) -> list[str]:
        """The last line, where it has no line end."""
        rest, self._rest = self._rest + self._decoder.decode(b"", final=True), ""
        return [_shown(rest)] if rest else []


def _shown(line: str) -> str:
    return plain(line.rstrip("\r").rpartition("\r")[2])
