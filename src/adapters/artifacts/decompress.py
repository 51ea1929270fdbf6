"""Compressed streams as the plain bytes in them, told apart by how they begin."""

import bz2
import lzma
from collections.abc import Callable
from typing import Protocol, cast

from ...domain.errors import ArtifactInvalid
from .streams import CHUNK_BYTES, ByteReader, PrefixedReader
from .zstd_frames import ZstdFrames

_ZIPPED_CHUNK_BYTES = 1 << 16  # small: what follows a member is copied, and some writers make many
_HEAD_BYTES = 6
_GZIP, _BZIP2 = b"\x1f\x8b", b"BZh"
_XZ, _ZSTD = b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"
_MEMORY_BYTES = (
    128 << 20
)  # what a stream may make its decompressor take: zstd and xz at their largest presets


class Inflater(Protocol):
    """A decompressor for one member of a stream, as the standard library and isal have them."""

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether it has nothing left to give."""

    @property
    def unused_data(self) -> bytes:
        """What follows the member."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Some of the content, at most `max_length` bytes."""


class MemberReader:
    """The content of a compressed stream, of all its members one after the other, checksums verified."""

    def __init__(
        self,
        source: ByteReader,
        make: Callable[[], Inflater],
        error: type[Exception],
        *,
        kind: str,
        what: str,
        uri: str,
    ) -> None:
        self._source = source
        self._error = error
        self._make = make
        self._inflater = make()
        self._kind = kind
        self._what = what
        self._uri = uri

    def read(self, size: int, /) -> bytes:
        zipped = b""
        while True:
            if self._inflater.eof:
                zipped = self._next_member()
                if not zipped:
                    return b""
            elif self._inflater.needs_input:
                zipped = self._source.read(_ZIPPED_CHUNK_BYTES)
                if not zipped:
                    raise self._broken("it ends too early")
            try:
                content = self._inflater.decompress(zipped, size)
            except (self._error, OSError, EOFError) as error:
                raise self._broken(str(error)) from error
            if content:
                return content
            zipped = b""

    def _next_member(self) -> bytes:
        """What the next member begins with, padding left out; b"" where there is none."""
        rest = self._inflater.unused_data.lstrip(b"\0")
        while not rest:
            rest = self._source.read(_ZIPPED_CHUNK_BYTES)
            if not rest:
                return b""
            rest = rest.lstrip(b"\0")
        self._inflater = self._make()
        return rest

    def _broken(self, reason: str) -> ArtifactInvalid:
        return ArtifactInvalid(self._uri, f"{self._what} is broken {self._kind}: {reason}")


class _ZstdReader:
    """The content of zstd frames, one after the other, checksums verified."""

    def __init__(self, source: ByteReader, *, what: str, uri: str) -> None:
        import zstandard  # late: most layers are gzipped

        self._error = zstandard.ZstdError
        self._what, self._uri = what, uri
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MEMORY_BYTES)
        self._stored = _Watched(source)
        self._plain = decompressor.stream_reader(
            self._stored,  # type: ignore[arg-type]  # read is all it calls
            read_size=CHUNK_BYTES // 4,
            read_across_frames=True,
        )

    def read(self, size: int, /) -> bytes:
        try:
            chunk = self._plain.read(size)
        except self._error as error:
            raise self._broken(str(error)) from error
        if size and not chunk and not self._stored.frames.is_whole:
            raise self._broken("it ends too early")
        return chunk

    def _broken(self, reason: str) -> ArtifactInvalid:
        return ArtifactInvalid(self._uri, f"{self._what} is broken zstd: {reason}")


class _Watched:
    """Just `read`, for zstandard, which would use anything else that it finds."""

    def __init__(self, source: ByteReader) -> None:
        self._source = source
        self.frames = ZstdFrames()

    def read(self, size: int) -> bytes:
        chunk = self._source.read(size)
        self.frames.feed(chunk)
        return chunk


def decompressed(source: ByteReader, *, what: str, uri: str) -> ByteReader:
    """`source` itself, or what is in it where it is gzip, zstd, xz or bzip2.

    Reading raises ArtifactInvalid where the stream is broken. Memory stays bounded whatever it says.
    """
    head = _read_head(source)
    whole = PrefixedReader(head, source)
    if head.startswith(_ZSTD):
        return _ZstdReader(whole, what=what, uri=uri)
    if head.startswith(_GZIP):
        from isal import igzip_lib  # late: twice as fast as zlib, but not loaded before it is used

        def gunzipper() -> Inflater:
            return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

        return MemberReader(
            whole, gunzipper, cast("type[Exception]", igzip_lib.error), kind="gzip", what=what, uri=uri
        )
    if head.startswith(_XZ):

        def unxzer() -> Inflater:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_BYTES)

        return MemberReader(whole, unxzer, lzma.LZMAError, kind="xz", what=what, uri=uri)
    if head.startswith(_BZIP2):
        return MemberReader(whole, bz2.BZ2Decompressor, ValueError, kind="bzip2", what=what, uri=uri)
    return whole


def _read_head(source: ByteReader) -> bytes:
    head = b""
    while len(head) < _HEAD_BYTES and (chunk := source.read(_HEAD_BYTES - len(head))):
        head += chunk
    return head
