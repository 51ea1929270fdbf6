"""The entries of a tar archive that nobody vouches for, one after the other."""

import tarfile
from collections.abc import Iterator
from typing import IO, cast

from ...domain.errors import ArtifactInvalid
from .quick_tar import QuickTarInfo
from .streams import CHUNK_BYTES, ForwardReader

_HEADER_BYTES = 1 << 20  # all headers of one entry: long names, extended attributes
_GLOBAL_HEADERS = 100


class TarMembers:
    """The entries of a tar stream, in order; memory does not grow with their number or size.

    Raises:
        ArtifactInvalid: `what` (how messages call the stream) is no tar archive, ends too early, or
            has headers no honest writer makes.
    """

    def __init__(self, reader: ForwardReader, *, what: str, uri: str) -> None:
        self._reader = reader
        self._what = what
        self._uri = uri
        self._archive: tarfile.TarFile | None = None

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        while (member := self._next()) is not None:
            yield member

    def content(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """The bytes of the current entry, exactly `member.size` of them."""
        if member.issparse():
            yield from self._sparse_content(member)
            return
        left = member.size  # the reader stands before them
        while left:
            chunk = self._reader.some(min(CHUNK_BYTES, left))
            if not chunk:
                raise ArtifactInvalid(self._uri, f"{self._what} ends within entry {member.name!r}")
            left -= len(chunk)
            yield chunk

    def _sparse_content(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """What an entry with holes stands for, zeros included."""
        assert self._archive is not None
        self._reader.allow(member.size + CHUNK_BYTES)
        left = member.size
        file = self._archive.extractfile(member)
        assert file is not None
        while left:
            try:
                chunk = file.read(min(CHUNK_BYTES, left))
            except tarfile.TarError as error:
                raise ArtifactInvalid(self._uri, f"{self._what}: entry {member.name!r}: {error}") from error
            if not chunk:
                raise ArtifactInvalid(self._uri, f"{self._what} ends within entry {member.name!r}")
            left -= len(chunk)
            yield chunk

    def _next(self) -> tarfile.TarInfo | None:
        self._reader.allow(_HEADER_BYTES)
        try:
            if self._archive is None:
                source = cast("IO[bytes]", self._reader)  # read, seek and tell are all that reading needs
                self._archive = tarfile.TarFile(
                    fileobj=source, encoding="utf-8", errors="surrogateescape", tarinfo=QuickTarInfo
                )
            member = self._archive.next()
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise ArtifactInvalid(self._uri, f"{self._what} is no readable tar archive: {error}") from error
        if member is None:
            # tarfile takes a broken header for the end; the real end is a block of zeros, or nothing.
            if self._reader.last_block.strip(b"\0"):
                raise ArtifactInvalid(self._uri, f"{self._what} has a broken tar header")
            return None
        if member.size < 0 or len(self._archive.pax_headers) > _GLOBAL_HEADERS:
            raise ArtifactInvalid(self._uri, f"{self._what}: impossible header of entry {member.name!r}")
        self._archive.members.clear()  # type: ignore[attr-defined]  # there, but not in typeshed
        return member
