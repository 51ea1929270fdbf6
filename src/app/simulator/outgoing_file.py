"""A local file on its way to a worker; reading and hashing stay off the event loop."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import anyio
from anyio import to_thread

from ...domain.errors import FileUnreadable

_CHUNK_BYTES = 256 * 1024  # as the frontend's buffers


@dataclass
class OutgoingFile:
    """A regular file and its size when it was opened; all methods raise FileUnreadable."""

    path: Path
    size_bytes: int
    _sha256: str = ""

    @classmethod
    async def open(cls, path: Path) -> Self:
        """The file at `path`, links followed."""
        with _readable(path):
            status = await anyio.Path(path).stat()
            if not await anyio.Path(path).is_file():
                raise FileUnreadable(path, "it is no regular file")
        return cls(path, status.st_size)

    async def sha256(self) -> str:
        """Hash of the content, 64 lower-case hex digits; computed once."""
        if not self._sha256:
            with _readable(self.path):
                self._sha256 = await to_thread.run_sync(self._digest, abandon_on_cancel=True)
        return self._sha256

    async def chunks(self, offset: int) -> AsyncIterator[bytes]:
        """The content from byte `offset` on: as many bytes as the size says, or an error."""
        left = self.size_bytes - offset
        with _readable(self.path):
            async with await anyio.open_file(self.path, "rb") as file:
                await file.seek(offset)
                while left:
                    chunk = await file.read(min(_CHUNK_BYTES, left))
                    if not chunk:
                        raise FileUnreadable(self.path, "it became shorter while it was sent")
                    left -= len(chunk)
                    yield chunk

    def _digest(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileUnreadable(path, error.strerror or str(error)) from error
