"""The entries of a tar archive that nobody vouches for, one after the other."""

import tarfile
from collections.abc import Iterable, Iterator
from typing import IO, cast

from ...domain.errors import ArtifactInvalid
from .forward_reader import ForwardReader
from .streams import CHUNK_BYTES
from .tar_headers import TarMember, read_ordinary

_HEADER_BYTES = 1 << 20  # all headers of one entry: long names, extended attributes
_GLOBAL_HEADERS = 100


class TarMembers:
    """The entries of a tar stream, in order; memory does not grow with their number or size.

    Ordinary headers are read here, and tarfile is called for all others.

    Raises:
        ArtifactInvalid: `what` (how messages call the stream) is no tar archive, ends too early, or
            has headers no honest writer makes.
    """

    def __init__(self, reader: ForwardReader, *, what: str, uri: str) -> None:
        self._reader = reader
        self._what = what
        self._uri = uri
        self._archive: tarfile.TarFile | None = None
        self._current: tarfile.TarInfo | None = None  # that tarfile has read

    def __iter__(self) -> Iterator[TarMember]:
        reader = self._reader
        while True:
            reader.allow(_HEADER_BYTES)
            # A global header changes how all that follow are read, which tarfile knows.
            has_global = self._archive is not None and self._archive.pax_headers
            member = None if has_global else read_ordinary(reader)
            if member is not None:
                after = member.offset
                if member.kind == tarfile.REGTYPE:  # whatever size another kind tells, nothing is stored
                    after += -(-member.size_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            else:
                member = self._read_unusual()
                if member is None:
                    return
                assert self._archive is not None
                after = self._archive.offset
            yield member
            reader.seek(after)

    def content(self, member: TarMember) -> Iterable[memoryview | bytes]:
        """The bytes of the current entry, exactly `member.size_bytes` of them."""
        if member.is_sparse:
            return self._sparse_content(member)
        return self._stored_content(member)

    def _stored_content(self, member: TarMember) -> Iterator[memoryview]:
        left = member.size_bytes  # the reader stands before them
        while left:
            chunk = self._reader.some(min(CHUNK_BYTES, left))
            if not chunk:
                raise ArtifactInvalid(self._uri, f"{self._what} ends within entry {member.name!r}")
            left -= len(chunk)
            yield chunk

    def _sparse_content(self, member: TarMember) -> Iterator[bytes]:
        """What an entry with holes stands for, zeros included."""
        assert self._archive is not None
        assert self._current is not None
        self._reader.allow(member.size_bytes + CHUNK_BYTES)
        left = member.size_bytes
        file = self._archive.extractfile(self._current)
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

    def _read_unusual(self) -> TarMember | None:
        """The next entry as tarfile reads it; None at the end."""
        self._reader.allow(_HEADER_BYTES)
        try:
            found = self._next_by_tarfile()
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise ArtifactInvalid(self._uri, f"{self._what} is no readable tar archive: {error}") from error
        assert self._archive is not None
        if found is None:
            # tarfile takes a broken header for the end; the real end is a block of zeros, or nothing.
            if self._reader.last_block.strip(b"\0"):
                raise ArtifactInvalid(self._uri, f"{self._what} has a broken tar header")
            return None
        if found.size < 0 or len(self._archive.pax_headers) > _GLOBAL_HEADERS:
            raise ArtifactInvalid(self._uri, f"{self._what}: impossible header of entry {found.name!r}")
        self._archive.members.clear()  # type: ignore[attr-defined]  # there, but not in typeshed
        self._current = found
        kind = tarfile.REGTYPE if found.isreg() else found.type
        return TarMember(
            found.name,
            kind,
            found.mode,
            found.size,
            found.mtime,
            found.linkname,
            found.offset_data,
            found.issparse(),
        )

    def _next_by_tarfile(self) -> tarfile.TarInfo | None:
        if self._archive is None:
            source = cast("IO[bytes]", self._reader)  # read, seek and tell are all that reading needs
            # It reads the first entry at once.
            self._archive = tarfile.TarFile(fileobj=source, encoding="utf-8", errors="surrogateescape")
            first: tarfile.TarInfo | None = self._archive.firstmember  # type: ignore[attr-defined]
            self._archive.firstmember = None  # type: ignore[attr-defined]
            return first
        self._archive.offset = self._reader.tell()
        return self._archive.next()
