"""One upload on its way in: limits while it is written, checks before it appears."""

from dataclasses import dataclass
from pathlib import Path

from anyio import CancelScope

from .errors import WorkerError
from .file_hashes import FileHashes
from .file_names import is_sidecar_name, sidecar_subject
from .ports.filesystem import IncomingFile, RootedPath


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


@dataclass
class Upload:
    """A file being received for `place`; nobody sees it before `finish`.

    Exactly one of `finish` and `abort` ends it. Whatever fails, an older file at `place` stays as it is.
    """

    place: RootedPath
    sink: IncomingFile
    hashes: FileHashes
    declared_sha256: str | None  # lower case
    length_bytes: int | None  # None: not declared, the end of the body is the end of the file
    limit_bytes: int | None

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`.

        Raises:
            UploadTooLarge, BodyTooLong: more came than the limit or the declared length.
            NoSpace, FileUnwritable: the bytes did not fit.
        """
        size_bytes = self.sink.size_bytes + len(chunk)
        if self.length_bytes is not None and size_bytes > self.length_bytes:
            raise BodyTooLong(self.length_bytes)
        if self.limit_bytes is not None and size_bytes > self.limit_bytes:
            raise UploadTooLarge(size_bytes, self.limit_bytes)
        await self.sink.write(chunk)

    async def finish(self) -> Path:
        """Check the whole, publish it, and return its path as the frontend is to know it.

        Raises:
            BodyTooShort, HashMismatch, SidecarRefused: what came is not what was announced.
            NoSpace, FileUnwritable: it cannot be published.
        """
        try:
            await self._check()
            await self._publish()
        except WorkerError:
            await self.abort()
            raise
        return self.place.path

    async def abort(self) -> None:
        """Drop what came; idempotent, and nothing happens after `finish`. Runs to its end when cancelled."""
        with CancelScope(shield=True):
            await self.sink.discard()

    async def _check(self) -> None:
        if self.length_bytes is not None and self.sink.size_bytes < self.length_bytes:
            raise BodyTooShort(self.sink.size_bytes, self.length_bytes)
        if self.declared_sha256 is None:
            return
        got = await self.sink.sha256()
        if got != self.declared_sha256:
            raise HashMismatch(self.declared_sha256, got)

    async def _publish(self) -> None:
        name = self.place.relative.name
        if not is_sidecar_name(name):
            await self.hashes.publish(self.place, self.sink)
        elif not await self.hashes.publish_sidecar(self.place, self.sink):
            raise SidecarRefused(name)
