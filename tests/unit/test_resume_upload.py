"""Uploads in pieces: the rules of `Content-Range`, what is kept, and who loses."""

import hashlib
from pathlib import Path
from typing import Any

import anyio
import pytest

from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.errors import NoSpace
from localai_worker.domain.receive_files import ReceiveFiles
from localai_worker.domain.resume_upload import STUCK_S
from localai_worker.domain.upload import Upload
from localai_worker.domain.upload_errors import (
    BodyTooShort,
    HashMismatch,
    NamesDirectory,
    OtherUploadHeld,
    RangeNotHeld,
    SidecarRefused,
    UploadTooLarge,
)
from localai_worker.domain.validate_paths import FileRoots

ROOTS = FileRoots(Path("/models"), Path("/data"), Path("/staging"))
KEY, PATH = "models/m/x", Path("/models/m/x")
NEW = b"AAAAABBBBB"
SHA256 = hashlib.sha256(NEW).hexdigest()
OLD = b"the old model"
OTHER = hashlib.sha256(b"other").hexdigest()


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@pytest.fixture
def disk() -> InMemoryFileSystem:
    return InMemoryFileSystem()


@pytest.fixture
def files(disk: InMemoryFileSystem) -> ReceiveFiles:
    return ReceiveFiles(disk, ROOTS)


async def start(files: ReceiveFiles, span: str, *, sha256: str | None = SHA256, key: str = KEY) -> Upload:
    upload = await files.receive(key, declared_sha256=sha256, content_range=f"bytes {span}")
    assert not isinstance(upload, Path)
    return upload


async def put(files: ReceiveFiles, span: str, body: bytes, **which: Any) -> Path | None:
    upload = await start(files, span, **which)
    try:
        await upload.write(body)
        return await upload.finish()
    finally:
        await upload.abort()
        files.ended(upload)


async def cut_off(files: ReceiveFiles, span: str, body: bytes, **which: Any) -> None:
    """An upload whose client vanishes after `body`."""
    upload = await start(files, span, **which)
    await upload.write(body)
    await upload.abort()
    files.ended(upload)


async def held(files: ReceiveFiles, key: str = KEY) -> tuple[int, str | None, str | None]:
    probed = await files.probe(key)
    assert probed is not None
    return probed.size_bytes, probed.sha256, probed.target_sha256


async def whole_files(disk: InMemoryFileSystem) -> list[str]:
    return [path.name for path in disk.files(Path("/models"))]


async def test_an_upload_that_broke_off_goes_on_where_it_was(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-c22216129, H-2: a multi-GB upload starts from 0 at every drop; newer appends to the file itself."""
    await cut_off(files, "0-9/10", NEW[:5])
    assert await held(files) == (5, None, SHA256)
    assert disk.get(PATH) is None
    assert await put(files, "5-9/10", NEW[5:]) == PATH
    assert disk.get(PATH) == NEW
    assert disk.get(PATH.with_name("x.sha256")) == SHA256.encode()
    assert await whole_files(disk) == ["x", "x.sha256"]
    assert await held(files) == (10, SHA256, None)


async def test_a_new_worker_goes_on_where_the_killed_one_was(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-c22216129"""
    await cut_off(files, "0-9/10", NEW[:5])
    new_worker = ReceiveFiles(disk, ROOTS)
    assert await held(new_worker) == (5, None, SHA256)
    assert await put(new_worker, "5-9/10", NEW[5:]) == PATH
    assert disk.get(PATH) == NEW


async def test_pieces_that_are_not_the_last_are_kept_and_more_is_wanted(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    assert await put(files, "0-3/10", NEW[:4]) is None
    assert await put(files, "4-4/10", NEW[4:5]) is None
    assert await held(files) == (5, None, SHA256)
    assert await put(files, "5-9/10", NEW[5:]) == PATH
    assert disk.get(PATH) == NEW


async def test_the_old_file_stays_until_the_new_one_is_whole(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-2, S-K12: a crashed transfer leaves a truncated file that a backend may load."""
    disk.put(PATH, OLD)
    await cut_off(files, "0-9/10", NEW[:9])
    assert disk.get(PATH) == OLD
    assert await held(files) == (9, None, SHA256)
    outgoing = await files.send(KEY)
    assert outgoing is not None
    assert outgoing.size_bytes == len(OLD)
    assert await put(files, "9-9/10", NEW[9:]) == PATH
    assert disk.get(PATH) == NEW


async def test_an_upload_of_which_nothing_came_leaves_nothing(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    await cut_off(files, "0-9/10", b"")
    assert await files.probe(KEY) is None
    assert disk.files() == []
    assert await disk.list_directory(PATH.parent) == ()


@pytest.mark.parametrize(("kept", "at"), [(0, 3), (5, 3), (5, 6), (5, 9)])
async def test_a_start_that_is_not_the_size_held_is_refused_with_the_size(
    files: ReceiveFiles, kept: int, at: int
) -> None:
    if kept:
        await cut_off(files, "0-9/10", NEW[:kept])
    with pytest.raises(RangeNotHeld) as caught:
        await start(files, f"{at}-9/10")
    assert caught.value.held_bytes == kept
    assert str(caught.value) == f"Content-Range start {at} does not match current file size {kept}"
    if kept:
        assert await held(files) == (kept, None, SHA256)


@pytest.mark.parametrize("sha256", [OTHER, None])
async def test_going_on_with_another_file_drops_what_was_held(
    disk: InMemoryFileSystem, files: ReceiveFiles, sha256: str | None
) -> None:
    await cut_off(files, "0-9/10", NEW[:5])
    disk.put(PATH, OLD)
    with pytest.raises(OtherUploadHeld, match="restart from byte 0") as caught:
        await start(files, "5-9/10", sha256=sha256)
    assert f"was {SHA256}, now {sha256 or 'none'}" in str(caught.value)
    assert await held(files) == (len(OLD), hashlib.sha256(OLD).hexdigest(), None)


@pytest.mark.parametrize("sha256", [SHA256, OTHER, None])
async def test_from_byte_0_it_starts_anew_whatever_is_held(
    disk: InMemoryFileSystem, files: ReceiveFiles, sha256: str | None
) -> None:
    """H-3: newer answers 416 to the same hash, and a client that cannot resume is stuck."""
    await cut_off(files, "0-9/10", b"wrong")
    content = b"other" if sha256 == OTHER else NEW
    size = len(content)
    assert await put(files, f"0-{size - 1}/{size}", content, sha256=sha256) == PATH
    assert disk.get(PATH) == content
    assert await whole_files(disk) == ["x", "x.sha256"]


async def test_bytes_after_the_range_are_ignored(disk: InMemoryFileSystem, files: ReceiveFiles) -> None:
    upload = await start(files, "0-9/10")
    await upload.write(NEW[:7])
    assert upload.wanted_bytes == 3
    await upload.write(NEW[7:] + b" and more")
    await upload.write(b"still more")
    assert upload.wanted_bytes == 0
    assert await upload.finish() == PATH
    assert disk.get(PATH) == NEW


async def test_a_short_body_is_an_error_and_what_came_is_kept(files: ReceiveFiles) -> None:
    with pytest.raises(BodyTooShort, match=r"^short body: got 4 expected 10$"):
        await put(files, "0-9/10", NEW[:4])
    with pytest.raises(BodyTooShort, match=r"^short body: got 1 expected 6$"):
        await put(files, "4-9/10", NEW[4:5])
    assert await held(files) == (5, None, SHA256)


async def test_a_whole_that_hashes_to_something_else_is_dropped(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    disk.put(PATH, OLD)
    await cut_off(files, "0-9/10", b"wrong")
    with pytest.raises(HashMismatch):
        await put(files, "5-9/10", NEW[5:])
    assert disk.get(PATH) == OLD
    assert await whole_files(disk) == ["x"]
    assert await put(files, "0-9/10", NEW) == PATH


async def test_without_a_hash_pieces_are_joined_and_not_told_about(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-2: without a declared hash newer reports the hash of the part as if it were valid."""
    assert await put(files, "0-4/10", NEW[:5], sha256=None) is None
    assert await files.probe(KEY) is None
    assert await put(files, "5-9/10", NEW[5:], sha256=None) == PATH
    assert disk.get(PATH) == NEW


async def test_what_is_here_already_needs_not_be_sent(disk: InMemoryFileSystem, files: ReceiveFiles) -> None:
    """H-4: the second of two frontends that stage one file, once the first is done."""
    await put(files, "0-9/10", NEW)
    before = await disk.stat(PATH)
    for span in ("0-9/10", "5-9/10"):
        assert await files.receive(KEY, declared_sha256=SHA256, content_range=f"bytes {span}") == PATH
    assert await disk.stat(PATH) == before
    for content in (b"changed!!!", b"changed"):  # behind our back
        disk.put(PATH, content)
        assert await put(files, "0-9/10", NEW) == PATH
        assert disk.get(PATH) == NEW


async def test_a_full_disk_drops_what_came_and_keeps_the_old(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    disk.put(PATH, OLD)
    upload = await start(files, "0-9/10")
    await upload.write(NEW[:5])
    disk.capacity_bytes = len(OLD) + 6
    with pytest.raises(NoSpace):
        await upload.write(NEW[5:])
    await upload.abort()
    assert disk.get(PATH) == OLD
    assert await whole_files(disk) == ["x"]


async def test_a_range_that_cannot_fit_is_refused_before_the_body(disk: InMemoryFileSystem) -> None:
    """H-11"""
    files = ReceiveFiles(disk, ROOTS, max_upload_bytes=6)
    with pytest.raises(UploadTooLarge, match="10 bytes, this worker takes 6"):
        await start(files, "0-9/10")
    await cut_off(files, "0-4/10", NEW[:5])  # the limit is one for a request
    assert await put(files, "5-9/10", NEW[5:]) == PATH
    disk.capacity_bytes = 100
    with pytest.raises(NoSpace, match="free some"):
        await start(ReceiveFiles(disk, ROOTS), "0-999/1000", sha256=OTHER)


async def test_a_directory_is_no_destination(disk: InMemoryFileSystem, files: ReceiveFiles) -> None:
    disk.put(PATH / "file", b"kept")
    with pytest.raises(NamesDirectory):
        await start(files, "0-9/10")


async def test_a_whole_upload_ends_the_one_in_pieces(disk: InMemoryFileSystem, files: ReceiveFiles) -> None:
    await cut_off(files, "0-9/10", NEW[:5])
    upload = await files.receive(KEY, length_bytes=len(OLD))
    assert not isinstance(upload, Path)
    await upload.write(OLD)
    await upload.finish()
    assert await held(files) == (len(OLD), hashlib.sha256(OLD).hexdigest(), None)
    assert await whole_files(disk) == ["x", "x.sha256"]


async def test_a_whole_upload_leaves_one_in_pieces_that_is_running(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    running = await start(files, "0-9/10")
    await running.write(NEW[:5])
    upload = await files.receive(KEY, length_bytes=len(OLD))
    assert not isinstance(upload, Path)
    await upload.write(OLD)
    assert await upload.finish() == PATH
    await running.write(NEW[5:])
    assert await running.finish() == PATH
    assert disk.get(PATH) == NEW


async def test_the_note_of_a_go_worker_about_a_part_goes_with_the_part(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-3: to a Go worker on this volume our whole file would be a part for ever."""
    for ranged in (True, False):
        disk.put(PATH, NEW[:5])
        disk.put(PATH.with_name("x.sha256.target"), SHA256.encode())
        if ranged:
            await put(files, "0-9/10", NEW)
        else:
            upload = await files.receive(KEY)
            assert not isinstance(upload, Path)
            await upload.write(NEW)
            await upload.finish()
        assert await whole_files(disk) == ["x", "x.sha256"]


@pytest.mark.parametrize("true", [True, False])
async def test_a_sidecar_in_pieces_must_be_true_too(
    disk: InMemoryFileSystem, files: ReceiveFiles, true: bool
) -> None:
    """H-7"""
    disk.put(PATH, NEW)
    content = (SHA256 if true else OTHER).encode()
    declared = hashlib.sha256(content).hexdigest()
    which = {"sha256": declared, "key": f"{KEY}.sha256"}
    assert await put(files, "0-31/64", content[:32], **which) is None
    if true:
        assert await put(files, "32-63/64", content[32:], **which) == PATH.with_name("x.sha256")
        return
    with pytest.raises(SidecarRefused):
        await put(files, "32-63/64", content[32:], **which)
    assert await held(files) == (10, SHA256, None)


# A worker that ended between the last byte and the check.


async def all_bytes_kept(disk: InMemoryFileSystem, content: bytes) -> None:
    files = ReceiveFiles(disk, ROOTS)
    upload = await start(files, f"0-{len(NEW) - 1}/{len(NEW)}")
    await upload.write(content)
    await upload.abort()


async def test_an_upload_that_only_lacks_its_check_is_finished_by_the_next_probe(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-3: newer is stuck: the client begins at 0, and the worker answers 416 for ever."""
    await all_bytes_kept(disk, NEW)
    assert await held(files) == (10, SHA256, None)
    assert disk.get(PATH) == NEW
    assert await whole_files(disk) == ["x", "x.sha256"]


async def test_one_that_fails_its_late_check_is_dropped(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-3"""
    await all_bytes_kept(disk, b"wrongwrong")
    assert await files.probe(KEY) is None
    assert disk.files() == []


async def test_one_that_lacks_its_check_can_be_sent_anew(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-3"""
    await all_bytes_kept(disk, NEW)
    assert await put(files, "0-9/10", NEW) == PATH
    assert disk.get(PATH) == NEW


# Two at a time.


async def test_of_two_frontends_one_uploads_and_the_other_is_told_to_try_again(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-4, S-K12: newer lets both append; a status but 416 would be final for the loser."""
    winner = await start(files, "0-9/10")
    await winner.write(NEW[:5])
    for span, sha256 in (("0-9/10", SHA256), ("5-9/10", SHA256), ("0-4/5", OTHER), ("3-4/5", OTHER)):
        with pytest.raises(RangeNotHeld, match=r"upload of .* file is running") as caught:
            await start(files, span, sha256=sha256)
        assert caught.value.held_bytes == 5
    assert await held(files) == (5, None, SHA256)
    await winner.write(NEW[5:])
    assert await winner.finish() == PATH
    assert disk.get(PATH) == NEW


async def test_many_at_once_make_one_whole_file(disk: InMemoryFileSystem, files: ReceiveFiles) -> None:
    """H-4"""
    content = bytes(range(256)) * 40
    sha256 = hashlib.sha256(content).hexdigest()

    async def client() -> None:
        while True:
            probed = await files.probe(KEY)
            offset = probed.size_bytes if probed and probed.target_sha256 == sha256 else 0
            offset = offset if offset < len(content) else 0
            span = f"bytes {offset}-{len(content) - 1}/{len(content)}"
            try:
                upload = await files.receive(KEY, declared_sha256=sha256, content_range=span)
            except RangeNotHeld:
                await anyio.lowlevel.checkpoint()
                continue
            if isinstance(upload, Path):
                return
            for begin in range(offset, offset + 300, 100):
                await upload.write(content[begin : begin + 100])
            if upload.wanted_bytes == 0:
                await upload.finish()
            await upload.abort()
            files.ended(upload)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as clients:
            for _ in range(4):
                clients.start_soon(client)
    assert disk.get(PATH) == content
    assert await whole_files(disk) == ["x", "x.sha256"]


async def test_an_attempt_that_is_stuck_is_taken_over_by_the_next(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-4: a connection that broke without a word looks like a slow one for many minutes."""
    stuck = await start(files, "0-9/10")
    await stuck.write(NEW[:3])
    await anyio.sleep(STUCK_S - 1)
    with pytest.raises(RangeNotHeld):
        await start(files, "3-9/10")
    await stuck.write(NEW[3:5])
    await anyio.sleep(STUCK_S - 1)
    with pytest.raises(RangeNotHeld):
        await start(files, "5-9/10")
    await anyio.sleep(2)
    again = await start(files, "5-9/10")
    with pytest.raises(RangeNotHeld, match="a later attempt has taken over"):
        await stuck.write(NEW[5:])
    with pytest.raises(RangeNotHeld):
        await stuck.finish()
    await stuck.abort()
    files.ended(stuck)
    await again.write(NEW[5:])
    assert await again.finish() == PATH
    assert disk.get(PATH) == NEW
