"""Compressed streams: told apart, read whole, and refused where they end too early."""

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.artifacts.decompress import decompressed
from localai_worker.adapters.artifacts.streams import ByteReader
from localai_worker.adapters.artifacts.zstd_frames import ZstdFrames
from localai_worker.domain.errors import ArtifactInvalid

URI = "oci://r.invalid/b:1"
PLAIN = random.Random(1).randbytes(3000) + bytes(400_000) + b"end"


def zstd(content: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(content)  # type: ignore[arg-type]


def unsized_zstd(content: bytes) -> bytes:
    """Frames as a pipe has them, which say nothing of their size."""
    compressor = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return compressor.compress(content) + compressor.flush()


SKIPPED = b"\x53\x2a\x4d\x18" + (70_000).to_bytes(4, "little") + bytes(70_000)

FORMS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "xz": ("xz", lzma.compress),
    "bzip2": ("bzip2", bz2.compress),
    "zstd": ("zstd", zstd),
    "zstd with a checksum": ("zstd", lambda content: zstd(content, write_checksum=True)),
    "zstd of unknown size": ("zstd", unsized_zstd),
    "zstd with a small window": (
        "zstd",
        lambda content: zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(window_log=10)
        ).compress(content),
    ),
}


class Crumbs:
    """A source that gives a few bytes at a time."""

    def __init__(self, content: bytes, crumb: int) -> None:
        self._stream = io.BytesIO(content)
        self._crumb = crumb

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._crumb))


def content_of(source: ByteReader) -> bytes:
    reader = decompressed(source, what="layer 2 of 3", uri=URI)
    return b"".join(iter(lambda: reader.read(1 << 16), b""))


@pytest.mark.parametrize(("kind", "compress"), FORMS.values(), ids=FORMS.keys())
def test_a_stream_cut_off_anywhere_is_told_by_what_reads_it(
    kind: str, compress: Callable[[bytes], bytes]
) -> None:
    """Source and reason are named, also where the archive inside has ended before."""
    whole = compress(PLAIN)
    assert content_of(io.BytesIO(whole)) == PLAIN
    for end in {
        *range(6, 60),
        *range(len(whole) // 2, len(whole) // 2 + 20),
        *range(len(whole) - 60, len(whole)),
    }:
        with pytest.raises(ArtifactInvalid) as caught:
            content_of(io.BytesIO(whole[:end]))
        assert str(caught.value).endswith(f"layer 2 of 3 is broken {kind}: it ends too early"), end
        assert URI in str(caught.value)


@pytest.mark.parametrize(("kind", "compress"), FORMS.values(), ids=FORMS.keys())
def test_members_follow_each_other_and_each_must_be_whole(
    kind: str, compress: Callable[[bytes], bytes]
) -> None:
    one, two = compress(PLAIN), compress(b"and more")
    assert content_of(io.BytesIO(one + two)) == PLAIN + b"and more"
    with pytest.raises(ArtifactInvalid, match=f"is broken {kind}: it ends too early"):
        content_of(io.BytesIO(one + two[:-1]))


@pytest.mark.parametrize("crumb", [1, 7, 4096])
def test_frames_are_followed_however_they_come(crumb: int) -> None:
    stream = zstd(b"") + SKIPPED + unsized_zstd(PLAIN) + SKIPPED
    assert content_of(Crumbs(stream, crumb)) == PLAIN
    with pytest.raises(ArtifactInvalid, match="is broken zstd: it ends too early"):
        content_of(Crumbs(stream[:-1], crumb))


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=4), st.booleans(), st.randoms())
def test_only_the_ends_of_frames_are_ends(parts: list[bytes], checksum: bool, chance: random.Random) -> None:
    ends, stream = [0], b""
    for part in parts:
        stream += zstd(part, write_checksum=checksum)
        ends.append(len(stream))
    frames, at = ZstdFrames(), 0
    while at < len(stream):
        step = chance.randint(1, 50)
        frames.feed(stream[at : at + step])
        at = min(at + step, len(stream))
        assert frames.is_whole == (at in ends)


@pytest.mark.parametrize("rest", [b"garbage!", zstd(PLAIN)[:3] + b"\0rest"])
def test_what_follows_and_is_no_zstd_is_refused_by_the_decompressor(rest: bytes) -> None:
    with pytest.raises(ArtifactInvalid, match="is broken zstd"):
        content_of(io.BytesIO(zstd(PLAIN) + rest))
