"""Why an upload is refused, or cannot go on."""

from dataclasses import dataclass
from pathlib import Path

from .content_range import ContentRange
from .errors import WorkerError
from .file_names import sidecar_subject


@dataclass(eq=False)
class NamesDirectory(WorkerError):
    """A key names a directory where only a file will do."""

    path: Path

    def __str__(self) -> str:
        return f"{self.path} is a directory"


@dataclass(eq=False)
class InvalidHash(WorkerError):
    """A declared hash that no content can have."""

    declared: str

    def __str__(self) -> str:
        return f"X-Content-SHA256 {self.declared[:100]!a} is not 64 hex digits"


@dataclass(eq=False)
class UploadTooLarge(WorkerError):
    """An upload is larger than this worker takes; `size_bytes`: as declared, or as far as it was read."""

    size_bytes: int
    limit_bytes: int

    def __str__(self) -> str:
        return f"request body too large: {self.size_bytes} bytes, this worker takes {self.limit_bytes}"


@dataclass(eq=False)
class BodyTooShort(WorkerError):
    """The body ended before the declared length."""

    got_bytes: int
    expected_bytes: int

    def __str__(self) -> str:
        return f"short body: got {self.got_bytes} expected {self.expected_bytes}"


@dataclass(eq=False)
class BodyTooLong(WorkerError):
    """The body goes on after the declared length."""

    expected_bytes: int

    def __str__(self) -> str:
        return f"long body: it goes on after the expected {self.expected_bytes} bytes"


@dataclass(eq=False)
class HashMismatch(WorkerError):
    """The body does not hash to what its sender declared; nothing was stored."""

    expected: str
    got: str

    def __str__(self) -> str:
        return f"sha256 mismatch: expected {self.expected} got {self.got}"


@dataclass(eq=False)
class SidecarRefused(WorkerError):
    """A client sends a file under a name this worker reads hashes from, and it does not say the truth."""

    name: str

    def __str__(self) -> str:
        subject = sidecar_subject(self.name)
        return f"{self.name!a} may only hold the SHA-256 of {subject!a} as stored here; rename the file"


@dataclass(eq=False)
class RangeNotHeld(WorkerError):
    """An upload wants to go on from bytes that this worker does not hold; `held_bytes` are what it holds.

    The first words are upstream's. Clients ask again and go on from there, or start at 0.
    """

    range: ContentRange
    held_bytes: int
    why: str = ""

    def __str__(self) -> str:
        text = f"Content-Range start {self.range.start} does not match current file size {self.held_bytes}"
        return f"{text}; {self.why}" if self.why else text


@dataclass(eq=False)
class OtherUploadHeld(WorkerError):
    """An upload wants to go on, but what this worker held was part of another file; it is dropped now."""

    was: str
    now: str

    def __str__(self) -> str:
        pair = f"was {self.was or 'none'}, now {self.now or 'none'}"
        return f"X-Content-SHA256 mismatch with in-progress upload ({pair}); restart from byte 0"
