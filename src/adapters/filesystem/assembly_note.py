"""The note behind the last byte of a file that is being assembled: which bytes of which version are there."""

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from ...domain.byte_spans import ByteSpan, ByteSpans

NOTE_BYTES = 8192  # room for a long ETag and the gaps of some hundred ranges
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Note:
    """What of which version is there. `boot` empty: it survives a power cut, else only within that boot."""

    version: str
    size_bytes: int
    boot: str
    spans: ByteSpans

    def to_bytes(self) -> bytes:
        """The last `NOTE_BYTES` of the file."""
        spans = [(span.start, span.stop) for span in self.spans]
        while True:
            text = json.dumps([self.version, self.size_bytes, self.boot, spans]).encode()
            if len(text) + 8 <= NOTE_BYTES or not spans:
                break
            spans = spans[: len(spans) // 2]
        return (zlib.crc32(text).to_bytes(4, "big") + len(text).to_bytes(4, "big") + text).ljust(
            NOTE_BYTES, b"\0"
        )

    @classmethod
    def read(cls, descriptor: int) -> "Note | None":
        """The note at the end of an open file; None when there is none that can be trusted."""
        size_bytes = os.fstat(descriptor).st_size - NOTE_BYTES
        if size_bytes < 0:
            return None
        content = os.pread(descriptor, NOTE_BYTES, size_bytes)
        text = content[8 : 8 + int.from_bytes(content[4:8], "big")]
        if not text or zlib.crc32(text) != int.from_bytes(content[:4], "big"):
            return None
        version, noted_bytes, boot, spans = json.loads(text)
        if noted_bytes != size_bytes or boot not in {"", boot_id()}:
            return None
        return cls(version, size_bytes, boot, ByteSpans.of(ByteSpan(*span) for span in spans))


def boot_id() -> str:
    """This boot of the machine; `-` where nobody can tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "-"
