"""Files on web servers, for those who take them in."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Download(Protocol):
    """One file on its way. `starts_at` is 0 where the server gives no part of it."""

    @property
    def starts_at(self) -> int:
        """The first byte that comes."""

    @property
    def total_bytes(self) -> int | None:
        """The size of the whole file; None where the server does not tell."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The content, in pieces as they come.

        Raises:
            ArtifactUnavailable: the connection broke, or was silent for too long.
        """


class HostNames(Protocol):
    """Who is behind a host's name."""

    async def resolve(self, host: str) -> tuple[str, ...]:
        """The addresses of `host`, as texts; none where it has none or nobody can tell within 10 s."""


class Downloads(Protocol):
    """Fetches files by `http://` and `https://`."""

    def together(self) -> AbstractAsyncContextManager["Downloads"]:
        """The same for many files: what one needed to get there serves the next, until this is left."""

    def open(self, url: str, *, start: int = 0, token: str = "") -> AbstractAsyncContextManager[Download]:
        """The file at `url` from byte `start` on; entering raises what is wrong.

        A `token` ("": none) opens what is closed without it; it goes to the host of `url` alone.

        Raises:
            ArtifactMissing: the server says that there is no such file.
            DownloadRefused: it says that we shall not have it; asking again cannot help.
            ArtifactUnavailable: it cannot be reached, or has trouble of its own.
            UnsupportedSource: another kind of url.
        """

    async def size(self, url: str) -> int | None:
        """The size of the file at `url`; None where nobody tells, whatever the reason."""
