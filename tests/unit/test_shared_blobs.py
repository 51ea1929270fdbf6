"""Blobs that several threads fill while others read them."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from localai_worker.adapters.artifacts.blobs.shared_blob import Part, SharedBlob

CONTENT = bytes(range(100))


@pytest.fixture
def blob(tmp_path: Path) -> Iterator[SharedBlob]:
    """Of 100 bytes, in parts of 40."""
    blob = SharedBlob("sha256:00", tmp_path / "blob", len(CONTENT), part_bytes_for=lambda _: 40)
    assert blob.open()
    yield blob
    blob.close()


def claimed(blob: SharedBlob) -> Part:
    part = blob.claim()
    assert part is not None
    return part


def test_a_reader_gets_all_that_it_wants_although_it_comes_in_small_chunks(blob: SharedBlob) -> None:
    read: list[bytes | None] = []
    reader = threading.Thread(target=lambda: read.append(blob.read(10, 1000, wait_s=30)))
    reader.start()
    part = claimed(blob)
    for at in range(0, 40, 4):
        blob.write(part, at, CONTENT[at : at + 4])
    reader.join()
    assert read == [CONTENT[10:40]]  # and no more than its part


def test_a_reader_gets_what_is_there_when_no_more_comes(blob: SharedBlob) -> None:
    assert blob.read(0, 1000, wait_s=0) is None
    blob.write(claimed(blob), 0, CONTENT[:7])
    assert blob.read(0, 1000, wait_s=0) == CONTENT[:7]
    assert blob.read(0, 5, wait_s=30) == CONTENT[:5]


def test_a_reader_is_not_kept_by_what_comes_elsewhere(blob: SharedBlob) -> None:
    claimed(blob)
    second, third = claimed(blob), claimed(blob)
    blob.write(second, 40, CONTENT[40:80])
    blob.write(third, 80, CONTENT[80:])
    assert blob.read(0, 1000, wait_s=0) is None
    assert blob.read(40, 1000, wait_s=30) == CONTENT[40:80]
    assert blob.read(90, 1000, wait_s=30) == CONTENT[90:]
    assert blob.read(100, 1000, wait_s=30) == b""


def test_a_reader_goes_on_when_the_blob_begins_anew(blob: SharedBlob) -> None:
    read: list[bytes | None] = []
    reader = threading.Thread(target=lambda: read.append(blob.read(0, 1000, wait_s=30)))
    part = claimed(blob)
    blob.write(part, 0, CONTENT[:20])
    reader.start()
    blob.forget(blob.edition)
    blob.write(part, 20, CONTENT[20:40])  # of the edition before: it is not there
    part = claimed(blob)
    blob.write(part, 0, CONTENT[:40])
    reader.join()
    assert read[0] is None or read[0] == CONTENT[: len(read[0])]
    assert blob.read(0, 1000, wait_s=0) == CONTENT[:40]
