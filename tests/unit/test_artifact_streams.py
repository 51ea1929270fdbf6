"""The readers below an archive: sections, hashes and what keeps tarfile from believing everything."""

import gzip
import io
import tracemalloc

import pytest

from localai_worker.adapters.artifacts.decompress import decompressed
from localai_worker.adapters.artifacts.forward_reader import ForwardReader
from localai_worker.adapters.artifacts.streams import FileSection
from localai_worker.adapters.artifacts.tar_members import TarMembers
from localai_worker.domain.errors import ArtifactInvalid, ArtifactUnavailable
from tests.archives import entry, tar

URI = "ocifile:///x.tar"


def section(content: bytes, offset: int, size_bytes: int) -> FileSection:
    return FileSection(io.BytesIO(content), offset, size_bytes, uri=URI, check_cancelled=lambda: None)


def forward(content: bytes, limit_bytes: int = 1000) -> ForwardReader:
    return ForwardReader(io.BytesIO(content), limit_bytes=limit_bytes, uri=URI)


def test_a_section_is_a_file_of_its_own() -> None:
    part = section(b"0123456789", 2, 5)
    assert (part.read(2), part.skip(1), part.read(100), part.read(1)) == (b"23", 1, b"56", b"")


def test_a_section_beyond_the_end_of_the_file_says_what_is_missing() -> None:
    part = section(b"0123", 2, 5)
    assert part.read(5) == b"23"
    with pytest.raises(ArtifactInvalid, match="3 bytes too early"):
        part.read(5)


def test_a_file_that_cannot_be_read_is_unavailable_not_invalid() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(ArtifactUnavailable, match="Input/output error"):
        FileSection(Failing(b"x"), 0, 1, uri=URI, check_cancelled=lambda: None).read(1)


def test_every_read_looks_for_a_cancellation() -> None:
    def cancelled() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FileSection(io.BytesIO(b"x"), 0, 1, uri=URI, check_cancelled=cancelled).read(1)


def test_a_reader_goes_forward_only() -> None:
    reader = forward(b"0123456789")
    reader.allow(10)
    assert (reader.read(2), reader.seek(5), reader.read(2), reader.tell()) == (b"01", 5, b"56", 7)
    with pytest.raises(ArtifactInvalid, match="backwards"):
        reader.seek(6)
    with pytest.raises(ArtifactInvalid, match="too early"):
        reader.seek(11)


@pytest.mark.parametrize("size", [7, -1])
def test_a_reader_reads_no_more_than_allowed(size: int) -> None:
    reader = forward(bytes(100))
    reader.allow(10)
    assert len(reader.read(4)) == 4
    with pytest.raises(ArtifactInvalid, match="larger than any real one"):
        reader.read(size)


def test_a_stream_is_limited_also_where_it_is_only_skipped() -> None:
    with pytest.raises(ArtifactInvalid, match="more than 50 bytes"):
        forward(bytes(100), limit_bytes=50).seek(60)
    with pytest.raises(ArtifactInvalid, match="more than 50 bytes"):
        forward(bytes(100), limit_bytes=50).drain()


def test_unzipping_gives_no_more_than_asked_for() -> None:
    reader = decompressed(io.BytesIO(gzip.compress(bytes(10_000_000))), what="layer", uri=URI)
    assert len(reader.read(1000)) <= 1000


def test_listing_entries_takes_no_more_memory_for_more_of_them() -> None:
    stream = tar([entry(f"directory/file-{number}") for number in range(5000)])
    reader = ForwardReader(io.BytesIO(stream), limit_bytes=len(stream), uri=URI)
    tracemalloc.start()
    try:
        count = sum(1 for _ in TarMembers(reader, what="layer", uri=URI))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 5000
    assert peak_bytes < 1 << 20
