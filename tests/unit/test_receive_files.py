import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group

from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain.content_range import InvalidContentRange
from localai_worker.domain.errors import FileUnreadable, FileUnwritable, NoSpace, PathEscapes, WorkerError
from localai_worker.domain.receive_files import UPLOAD_LIMIT_BYTES, ReceiveFiles
from localai_worker.domain.upload import Upload
from localai_worker.domain.upload_errors import (
    BodyTooLong,
    BodyTooShort,
    HashMismatch,
    InvalidHash,
    NamesDirectory,
    SidecarRefused,
    UploadTooLarge,
)
from localai_worker.domain.validate_paths import FileRoots, InvalidKey, KeyRequired

ROOTS = FileRoots(Path("/models"), Path("/data"), Path("/staging"))
OLD = b"the good old model"
NEW = b"the new model"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def disk() -> InMemoryFileSystem:
    return InMemoryFileSystem()


@pytest.fixture
def files(disk: InMemoryFileSystem) -> ReceiveFiles:
    return ReceiveFiles(disk, ROOTS)


async def put(
    files: ReceiveFiles, key: str, content: bytes, *, declared: str | None = None, span: str | None = None
) -> Path:
    upload = await files.receive(key, declared_sha256=declared, length_bytes=len(content), content_range=span)
    if isinstance(upload, Path):
        return upload
    await upload.write(content)
    path = await upload.finish()
    assert path is not None
    return path


async def begin(files: ReceiveFiles, key: str, **headers: Any) -> Upload:
    upload = await files.receive(key, **headers)
    assert not isinstance(upload, Path)
    return upload


async def test_prepare_makes_the_three_directories(disk: InMemoryFileSystem, files: ReceiveFiles) -> None:
    """H-9: upstream makes staging only, and refuses every model on a fresh node."""
    await files.prepare()
    await files.prepare()
    for directory in (ROOTS.models, ROOTS.data, ROOTS.staging):
        assert disk.mode_of(directory) == 0o750


async def test_prepare_fails_when_a_directory_cannot_be(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    disk.put(ROOTS.data, b"a file")
    with pytest.raises(FileUnwritable):
        await files.prepare()


# uploads


async def test_an_upload_lands_where_its_key_says_with_a_sidecar(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """M-7.1, M-7.2."""
    path = await put(files, "models/qwen3/qwen.gguf", NEW)
    assert path == Path("/models/qwen3/qwen.gguf")
    assert disk.get(path) == NEW
    assert disk.mode_of(path.parent) == 0o750
    sidecar = Path("/models/qwen3/qwen.gguf.sha256")
    assert disk.get(sidecar) == sha256(NEW).encode()
    assert disk.files() == [path, sidecar]


async def test_a_base_directory_that_vanished_is_made_again(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-9"""
    await files.prepare()
    await disk.remove_tree(ROOTS.models)
    await disk.remove_tree(ROOTS.staging)
    await put(files, "models/x", NEW)
    assert disk.get(Path("/models/x")) == NEW
    assert (await files.new_temporary()).parent == ROOTS.staging


async def test_an_empty_upload_of_unknown_length_makes_an_empty_file(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    upload = await begin(files, "models/empty")
    assert await upload.finish() == Path("/models/empty")
    assert disk.get(Path("/models/empty")) == b""


@pytest.mark.parametrize("declared", [sha256(NEW), sha256(NEW).upper(), f" {sha256(NEW)} ", None, ""])
async def test_a_true_hash_of_either_case_or_none_is_accepted(
    disk: InMemoryFileSystem, files: ReceiveFiles, declared: str | None
) -> None:
    await put(files, "models/x", NEW, declared=declared)
    assert disk.get(Path("/models/x")) == NEW


async def fail_by_hash(files: ReceiveFiles, disk: InMemoryFileSystem, upload: Upload) -> WorkerError:
    await upload.write(NEW[:-1] + b"!")
    return await failure_of(upload)


async def fail_short(files: ReceiveFiles, disk: InMemoryFileSystem, upload: Upload) -> WorkerError:
    await upload.write(NEW[:-1])
    return await failure_of(upload)


async def fail_long(files: ReceiveFiles, disk: InMemoryFileSystem, upload: Upload) -> WorkerError:
    await upload.write(NEW)
    with pytest.raises(BodyTooLong) as caught:
        await upload.write(b"!")
    await upload.abort()
    return caught.value


async def fail_full(files: ReceiveFiles, disk: InMemoryFileSystem, upload: Upload) -> WorkerError:
    disk.capacity_bytes = len(OLD) + 64 + 5
    with pytest.raises(NoSpace) as caught:
        await upload.write(NEW)
    await upload.abort()
    return caught.value


async def fail_gone(files: ReceiveFiles, disk: InMemoryFileSystem, upload: Upload) -> WorkerError:
    await upload.write(NEW[:3])
    await upload.abort()
    await upload.abort()
    return WorkerError()


async def failure_of(upload: Upload) -> WorkerError:
    with pytest.raises(WorkerError) as caught:
        await upload.finish()
    return caught.value


Fail = Callable[[ReceiveFiles, InMemoryFileSystem, Upload], Awaitable[WorkerError]]


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (fail_by_hash, HashMismatch),
        (fail_short, BodyTooShort),
        (fail_long, BodyTooLong),
        (fail_full, NoSpace),
        (fail_gone, WorkerError),
    ],
)
async def test_whatever_fails_the_old_file_stays_and_nothing_else_does(
    disk: InMemoryFileSystem,
    files: ReceiveFiles,
    fail: Fail,
    error: type[WorkerError],
) -> None:
    """H-1, S-K12: upstream truncates first, so that a broken upload destroys a good model."""
    await put(files, "models/x", OLD)
    before = await disk.stat(Path("/models/x"))
    everything = disk.files()
    upload = await begin(files, "models/x", declared_sha256=sha256(NEW), length_bytes=len(NEW))
    failure = await fail(files, disk, upload)
    assert type(failure) is error
    assert disk.get(Path("/models/x")) == OLD
    assert await disk.stat(Path("/models/x")) == before
    assert disk.files() == everything
    probed = await files.probe("models/x")
    assert probed is not None
    assert probed.sha256 == sha256(OLD)


async def test_the_texts_of_refusals_name_both_sides(files: ReceiveFiles) -> None:
    with pytest.raises(HashMismatch) as mismatch:
        await put(files, "models/x", NEW, declared=sha256(OLD).upper())
    assert str(mismatch.value) == f"sha256 mismatch: expected {sha256(OLD)} got {sha256(NEW)}"
    upload = await begin(files, "models/x", length_bytes=10)
    await upload.write(b"123")
    with pytest.raises(BodyTooShort, match=r"^short body: got 3 expected 10$"):
        await upload.finish()


async def test_a_hash_that_is_none_is_refused_before_the_body(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    with pytest.raises(InvalidHash, match="64 hex digits"):
        await files.receive("models/x", declared_sha256="md5:0123")
    assert disk.files() == []


async def test_a_declared_length_over_the_limit_is_refused_before_the_body(disk: InMemoryFileSystem) -> None:
    """H-11: upstream finds out after 50 GiB were written."""
    files = ReceiveFiles(disk, ROOTS, max_upload_bytes=10)
    with pytest.raises(UploadTooLarge, match="11 bytes, this worker takes 10"):
        await files.receive("models/x", length_bytes=11)
    await put(files, "models/x", b"0123456789")
    assert ReceiveFiles(disk, ROOTS).max_upload_bytes == UPLOAD_LIMIT_BYTES == 50 * 1024**3


async def test_an_undeclared_length_meets_the_limit_while_it_is_written(disk: InMemoryFileSystem) -> None:
    files = ReceiveFiles(disk, ROOTS, max_upload_bytes=10)
    upload = await begin(files, "models/x")
    await upload.write(b"0123456789")
    with pytest.raises(UploadTooLarge):
        await upload.write(b"!")
    await upload.abort()
    assert disk.files() == []


async def test_no_limit_means_none(disk: InMemoryFileSystem) -> None:
    files = ReceiveFiles(disk, ROOTS, max_upload_bytes=None)
    upload = await begin(files, "models/x", length_bytes=UPLOAD_LIMIT_BYTES + 1)
    await upload.abort()


async def test_what_cannot_fit_is_refused_before_the_body(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-11: the free space is asked first."""
    disk.put(Path("/models/x"), OLD)
    disk.capacity_bytes = len(OLD) + 2_000_000
    with pytest.raises(NoSpace, match="2000001 bytes needed, 2000000 available; free some"):
        await files.receive("models/x", length_bytes=2_000_001)
    upload = await begin(files, "models/x", length_bytes=2_000_000)
    await upload.abort()


@pytest.mark.parametrize("key", ["models/", "models/d", "models/d/", "models/d/..", "/", "models/link"])
async def test_a_directory_is_no_destination_and_no_source(
    disk: InMemoryFileSystem, files: ReceiveFiles, key: str
) -> None:
    """H-13: a directory is refused, not served as an empty file."""
    await files.prepare()
    disk.put(Path("/models/d/file"), b"1")
    disk.link(Path("/models/link"), Path("d"))
    for attempt in (files.receive(key), files.send(key), files.probe(key)):
        with pytest.raises(NamesDirectory, match="is a directory"):
            await attempt


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("", KeyRequired),
        ("models/../x", PathEscapes),
        ("models/x\0", InvalidKey),
        ("models/" + "n" * 300, InvalidKey),
        ("models/out/x", PathEscapes),
        ("models/dangling", PathEscapes),
    ],
)
async def test_a_bad_key_is_refused_by_every_operation(
    disk: InMemoryFileSystem, files: ReceiveFiles, key: str, error: type[WorkerError]
) -> None:
    """H-8, H-29"""
    disk.link(Path("/models/out"), Path("/etc"))
    disk.link(Path("/models/dangling"), Path("/etc/new"))
    for attempt in (files.receive(key), files.send(key), files.probe(key), files.list_files(key)):
        with pytest.raises(error):
            await attempt


async def test_a_range_that_is_no_range_is_refused(files: ReceiveFiles) -> None:
    with pytest.raises(InvalidContentRange):
        await files.receive("models/x", content_range="bytes 9-0/10")


async def test_uploads_of_one_key_at_the_same_time_do_not_mix(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """S-K12, H-1: each has its own temporary file, the last one published stays."""
    contents = [bytes([number]) * 1000 for number in range(6)]

    async def send(content: bytes) -> None:
        upload = await begin(files, "models/x", length_bytes=len(content))
        for start in range(0, len(content), 100):
            await upload.write(content[start : start + 100])
        await upload.finish()

    async with create_task_group() as tasks:
        for content in contents:
            tasks.start_soon(send, content)
    stored = disk.get(Path("/models/x"))
    assert stored in contents
    assert disk.get(Path("/models/x.sha256")) == sha256(stored).encode()
    assert disk.files() == [Path("/models/x"), Path("/models/x.sha256")]


async def test_an_upload_replaces_a_link_and_leaves_what_it_shared(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    disk.put(Path("/models/blobs/1"), OLD)
    disk.link(Path("/models/x"), Path("blobs/1"))
    await put(files, "models/x", NEW)
    assert disk.get(Path("/models/x")) == NEW
    assert disk.get(Path("/models/blobs/1")) == OLD


# sidecars sent by a client


@pytest.mark.parametrize(
    "key", ["models/x.sha256", "models/x.sha256.target", "models/absent.sha256", "models/x.sha256/"]
)
async def test_a_forged_hash_is_refused_under_every_name_a_worker_trusts(
    disk: InMemoryFileSystem, files: ReceiveFiles, key: str
) -> None:
    """H-7: with it HEAD would lie, and the right model would never be uploaded."""
    await put(files, "models/x", OLD)
    everything = disk.files()
    for content in (sha256(NEW).encode(), b"", b"anything"):
        with pytest.raises(SidecarRefused, match="may only hold the SHA-256"):
            await put(files, key, content)
    assert disk.files() == everything
    probed = await files.probe("models/x")
    assert probed is not None
    assert probed.sha256 == sha256(OLD)


async def test_a_true_hash_is_taken_as_a_frontend_uploads_its_own_sidecars_along(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-7: the walk of an option's directory does not skip them, and a refusal would cost the option."""
    await put(files, "models/x", OLD)
    assert await put(files, "models/x.sha256", sha256(OLD).encode()) == Path("/models/x.sha256")
    disk.put(Path("/models/unhashed"), NEW)
    await put(files, "models/unhashed.sha256", sha256(NEW).encode())
    assert disk.get(Path("/models/unhashed.sha256")) == sha256(NEW).encode()
    with pytest.raises(SidecarRefused):
        await put(files, "models/x.sha256.target", sha256(OLD).encode())


async def test_no_hash_can_be_stored_for_what_is_no_file_of_ours(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    disk.link(Path("/models/out"), Path("/etc/passwd"))
    disk.put(Path("/models/d/file"), b"")
    for key in ("models/out.sha256", "models/d.sha256"):
        with pytest.raises(SidecarRefused):
            await put(files, key, sha256(b"").encode())


# probes, fetches, temporaries, lists


async def test_a_probe_tells_size_path_and_hash(disk: InMemoryFileSystem, files: ReceiveFiles) -> None:
    disk.put(Path("/data/out.bin"), OLD)
    probed = await files.probe("data/out.bin")
    assert probed is not None
    assert (probed.size_bytes, probed.path, probed.sha256) == (len(OLD), Path("/data/out.bin"), sha256(OLD))
    assert await files.probe("data/absent") is None
    assert await files.probe("data/out.bin/below") is None


async def test_a_file_not_ours_to_read_is_unreadable(disk: InMemoryFileSystem, files: ReceiveFiles) -> None:
    disk.put(Path("/models/x"), OLD, mode=0)
    for attempt in (files.probe("models/x"), files.send("models/x")):
        with pytest.raises(FileUnreadable):
            await attempt


async def test_a_file_is_sent_whole(disk: InMemoryFileSystem, files: ReceiveFiles) -> None:
    disk.put(Path("/staging/localai-output-1.tmp"), b"generated")
    outgoing = await files.send("localai-output-1.tmp")
    assert outgoing is not None
    assert b"".join([chunk async for chunk in outgoing.chunks()]) == b"generated"
    assert await files.send("absent") is None


async def test_temporaries_lie_flat_in_staging_under_unique_names(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    paths = {await files.new_temporary() for _ in range(10)}
    assert len(paths) == 10
    for path in paths:
        assert path.parent == ROOTS.staging
        assert path.name.startswith("localai-output-")
        assert path.suffix == ".tmp"
        assert disk.mode_of(path) == 0o600
        probed = await files.probe(path.name)
        assert probed is not None
        assert probed.size_bytes == 0


async def test_a_list_hides_hashes_and_files_being_received(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    """H-15"""
    await put(files, "models/exported/shards/model-00001.safetensors", NEW)
    await put(files, "models/exported/config.json", NEW)
    disk.put(Path("/models/exported/checksums.sha256"), b"of the model itself")
    upload = await begin(files, "models/exported/coming.bin", length_bytes=10)
    names = await files.list_files("models/exported")
    assert names is not None
    assert [str(name) for name in names] == [
        "checksums.sha256",
        "config.json",
        "shards/model-00001.safetensors",
    ]
    await upload.abort()


async def test_a_list_of_nothing_is_none_and_of_an_empty_directory_empty(
    disk: InMemoryFileSystem, files: ReceiveFiles
) -> None:
    await files.prepare()
    await put(files, "models/x", NEW)
    assert await files.list_files("data/") == ()
    assert await files.list_files("models/absent") is None
    assert await files.list_files("models/x") is None
