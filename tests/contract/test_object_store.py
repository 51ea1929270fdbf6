"""Every `ObjectStore` keeps these promises: memory, a directory, and S3 on two real servers."""

import hashlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath

import anyio
import pytest

from localai_worker.adapters.filesystem.ranged_files import LocalRangedFiles
from localai_worker.adapters.memory.object_store import InMemoryObjectStore
from localai_worker.adapters.s3 import upload as s3_upload
from localai_worker.adapters.s3.client import Bucket
from localai_worker.adapters.s3.object_store import S3ObjectStore
from localai_worker.adapters.shared_directory.object_store import DirectoryObjectStore
from localai_worker.domain.byte_spans import ByteSpan
from localai_worker.domain.errors import FileUnreadable, WorkerError
from localai_worker.domain.ports.filesystem import RootedPath
from localai_worker.domain.ports.object_store import ObjectInfo, ObjectStore, StagingKey
from localai_worker.domain.ports.ranged_files import AssembledFile, SourceFile
from localai_worker.domain.store_errors import ObjectChanged, ObjectInvalid, ObjectMissing
from tests.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

MIB = 1024 * 1024
FILES = LocalRangedFiles()
_numbers = count(1)


@dataclass
class Case:
    """A store, a place on disk, and keys that no other test uses."""

    store: ObjectStore
    top: Path
    kind: str
    prefix: str

    def key(self, rest: str) -> StagingKey:
        return StagingKey(self.prefix + rest)

    async def put(self, rest: str, content: bytes) -> None:
        source = await self.source(content)
        await self.store.put(self.key(rest), source)
        await source.close()

    async def source(self, content: bytes) -> SourceFile:
        name = f"source-{next(_numbers)}"
        (self.top / name).write_bytes(content)
        source = await FILES.open_source(RootedPath(self.top, PurePosixPath(name)))
        assert source is not None
        return source

    async def target(self, info: ObjectInfo, name: str = "target") -> AssembledFile:
        place = RootedPath(self.top, PurePosixPath(name))
        return await FILES.assemble(place, version=info.version, size_bytes=info.size_bytes)

    async def fetch(self, rest: str, known: ObjectInfo | None = None) -> bytes:
        stored = await self.store.open(self.key(rest), known)
        try:
            target = await self.target(stored.info)
            await stored.copy_to(target)
            await target.publish()
            await target.settle()
        finally:
            await stored.close()
        return (self.top / "target").read_bytes()


@pytest.fixture(params=["memory", "directory", "rclone", "seaweed"])
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    store: ObjectStore
    if request.param == "memory":
        store = InMemoryObjectStore()
    elif request.param == "directory":
        (tmp_path / "store").mkdir()
        store = DirectoryObjectStore(tmp_path / "store")
    else:
        server: S3Server = request.getfixturevalue(f"{request.param}_s3")
        store = S3ObjectStore(Bucket(server.url, BUCKET, "us-east-1", ACCESS_KEY, SECRET_KEY))
    yield Case(store, tmp_path, request.param, f"models/test-{random.getrandbits(48):x}/")
    await store.close()


@pytest.mark.parametrize("size_bytes", [0, 1, 3 * MIB + 1])
async def test_what_is_put_can_be_fetched(case: Case, size_bytes: int) -> None:
    content = random.Random(size_bytes).randbytes(size_bytes)
    await case.put("file", content)
    assert await case.fetch("file") == content
    info = await case.store.head(case.key("file"))
    assert info.size_bytes == size_bytes
    assert await case.fetch("file", info) == content


async def test_a_large_file_goes_in_parts_and_comes_back_in_ranges(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-K09: upstream sends one PutObject, which S3 refuses beyond 5 GiB."""
    monkeypatch.setattr(s3_upload, "MULTIPART_FROM_BYTES", 8 * MIB)
    monkeypatch.setattr(s3_upload, "PART_BYTES", 5 * MIB)
    content = random.Random(7).randbytes(21 * MIB + 5)
    await case.put("large", content)
    info = await case.store.head(case.key("large"))
    target = await case.target(info)
    target.write_at(6 * MIB, memoryview(content)[6 * MIB : 11 * MIB])  # what an earlier attempt left
    stored = await case.store.open(case.key("large"), info)
    await stored.copy_to(target)
    assert target.missing == ()
    await target.publish()
    await target.settle()
    await stored.close()
    assert (case.top / "target").read_bytes() == content
    if case.kind == "seaweed":
        assert info.etag.endswith("-5")
        assert await case.store.part_size_bytes(case.key("large"), info, 5) in {5 * MIB, None}


@pytest.mark.parametrize("size_bytes", [0, 5, MIB])
async def test_small_objects_may_come_with_their_opening(case: Case, size_bytes: int) -> None:
    if isinstance(case.store, InMemoryObjectStore):
        case.store.whole_bytes = 1000
    content = random.Random(size_bytes).randbytes(size_bytes)
    await case.put("file", content)
    stored = await case.store.open(case.key("file"))
    assert stored.whole == (content if size_bytes < MIB else None)
    target = await case.target(stored.info)
    await stored.copy_to(target)
    assert await target.digest("md5", ByteSpan(0, size_bytes)) == hashlib.md5(content).digest()
    await target.discard()
    await stored.close()


async def test_one_version_is_told_from_another(case: Case) -> None:
    await case.put("file", b"one")
    one = await case.store.head(case.key("file"))
    assert one == await case.store.head(case.key("file"))
    stored = await case.store.open(case.key("file"))
    assert stored.info == one
    await stored.close()
    await case.put("file", b"two")
    other = await case.store.head(case.key("file"))
    assert other.version != one.version
    assert other.size_bytes == one.size_bytes
    if other.etag_is_hash:
        assert other.etag == hashlib.md5(b"two").hexdigest()


async def test_an_object_replaced_before_it_is_read_is_not_mixed_up(case: Case) -> None:
    await case.put("file", b"one")
    one = await case.store.head(case.key("file"))
    await case.put("file", b"two")
    target = await case.target(one)
    with pytest.raises(ObjectChanged, match="replaced"):
        await (await case.store.open(case.key("file"), one)).copy_to(target)
    await target.discard()


async def test_what_is_absent_is_missing_and_deleting_it_is_fine(case: Case) -> None:
    """S-1.2.9, S-1.3.5"""
    for ask in (case.store.head, case.store.open):
        with pytest.raises(ObjectMissing, match="no such object"):
            await ask(case.key("absent"))
    await case.store.delete(case.key("absent"))
    await case.put("file", b"content")
    info = await case.store.head(case.key("file"))
    await case.store.delete(case.key("file"))
    with pytest.raises(ObjectMissing):
        await case.store.head(case.key("file"))
    target = await case.target(info)
    with pytest.raises((ObjectMissing, ObjectChanged)):
        await (await case.store.open(case.key("file"), info)).copy_to(target)
    await target.discard()


async def test_keys_are_listed_by_prefix_in_order(case: Case) -> None:
    """S-1.3.6"""
    for rest in ("b/two", "a", "b/one", "c"):
        await case.put(rest, b"x")
    assert await case.store.list_keys(case.prefix) == tuple(map(case.key, ("a", "b/one", "b/two", "c")))
    assert await case.store.list_keys(case.key("b/")) == tuple(map(case.key, ("b/one", "b/two")))
    assert await case.store.list_keys(case.key("nothing/")) == ()


@pytest.mark.parametrize(
    "rest", ["späte Größe/模型.gguf", "with space+plus%20percent", "quote\"'&<>", "a" * 200]
)
async def test_odd_keys_are_kept_as_they_are(case: Case, rest: str) -> None:
    await case.put(rest, b"content")
    assert await case.fetch(rest) == b"content"
    assert case.key(rest) in await case.store.list_keys(case.prefix)


async def test_a_double_slash_is_part_of_a_key(case: Case) -> None:
    """The frontend fetches outputs under such keys."""
    if case.kind == "rclone":
        pytest.skip("a gateway to a directory: it answers such keys with an error of its own")
    await case.put("fetch//node/out/output", b"content")
    assert await case.fetch("fetch//node/out/output") == b"content"


@pytest.mark.parametrize("key", ["", "k" * 1025])
async def test_keys_that_cannot_be_are_refused(case: Case, key: str) -> None:
    with pytest.raises(WorkerError):
        await case.store.head(StagingKey(key))
    source = await case.source(b"content")
    with pytest.raises(WorkerError):
        await case.store.put(StagingKey(key), source)
    await source.close()


@pytest.mark.parametrize("parts", [1, 3])
async def test_a_source_that_becomes_shorter_stores_nothing(
    case: Case, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.kind == "memory":
        pytest.skip("its source is read in one piece")
    monkeypatch.setattr(s3_upload, "MULTIPART_FROM_BYTES", 5 * MIB + 1)
    monkeypatch.setattr(s3_upload, "PART_BYTES", 5 * MIB)
    source = await case.source(b"x" * (parts * 5 * MIB))
    next((case.top).glob("source-*")).write_bytes(b"short")
    with pytest.raises(FileUnreadable, match="shorter"):
        await case.store.put(case.key("file"), source)
    await source.close()
    with pytest.raises(ObjectMissing):
        await case.store.head(case.key("file"))


async def test_a_cancelled_copy_stops_and_what_was_written_stays(case: Case) -> None:
    content = random.Random(3).randbytes(4 * MIB)
    await case.put("file", content)
    stored = await case.store.open(case.key("file"))
    target = await case.target(stored.info)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await stored.copy_to(target)
    await stored.close()
    await stored.close()
    await target.keep()
    again = await case.target(stored.info)
    await (await case.store.open(case.key("file"), stored.info)).copy_to(again)
    assert await again.digest("sha256", ByteSpan(0, len(content))) == hashlib.sha256(content).digest()
    await again.discard()


async def test_a_store_that_is_there_passes_the_check(case: Case) -> None:
    await case.store.check()


async def test_keys_of_a_directory_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "store" / "out").symlink_to(tmp_path)
    store = DirectoryObjectStore(tmp_path / "store")
    for key in ("../secret", "a/../../secret", "out/secret", ".", "/", "a/", "nul\0"):
        with pytest.raises(ObjectInvalid):
            await store.head(StagingKey(key))
    (tmp_path / "store" / "directory").mkdir()
    with pytest.raises(WorkerError):
        await store.open(StagingKey("directory"))
