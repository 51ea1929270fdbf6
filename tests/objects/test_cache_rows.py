"""`files.ensure` over every store and its disk: fresh, shared, whole, and nothing half-written."""

import os
from pathlib import PurePosixPath

import anyio
import pytest

from localai_worker.adapters.memory.object_store import InMemoryObjectStore
from localai_worker.domain.cache_keys import KeyEscapesCache
from localai_worker.domain.object_cache import DownloadFailed
from localai_worker.domain.ports.filesystem import FileKind, RootedPath
from localai_worker.domain.ports.object_store import StagingKey
from localai_worker.domain.store_errors import ObjectMissing
from localai_worker.domain.validate_paths import InvalidKey
from tests.objects.nodes import Life, ObjectNode

SIZES = [
    pytest.param(7, id="small"),
    pytest.param(700_000, id="middling"),  # beyond what comes with the opening
]


def content_of(size_bytes: int, seed: bytes = b"abcdefg") -> bytes:
    return (seed * (size_bytes // len(seed) + 1))[:size_bytes]


@pytest.mark.parametrize("size_bytes", SIZES)
async def test_an_object_lies_under_its_key_below_the_cache(node: ObjectNode, size_bytes: int) -> None:
    """S-1.3.3, S-1.4.1, S-1.1.1: below the cache, also for `models/...`; a hidden file until it is whole."""
    key = await node.upload("phi/sub/phi.gguf", content_of(size_bytes))
    async with node.live() as life:
        assert await life.cache.ensure(key) == node.cache_root / key
    assert node.cached(key) == content_of(size_bytes)
    assert node.store.asked == [f"GET {key}"]
    assert node.hidden == []


async def test_directories_are_made_at_the_start_and_for_each_key(node: ObjectNode) -> None:
    """S-1.3.1, S-1.3.9: 0750, and files as the umask has them."""
    key = await node.upload("phi/phi.gguf", b"weights")
    async with node.live() as life:
        found = await node.filesystem.locate(RootedPath(node.cache_root, PurePosixPath()))
        assert found is not None
        assert found.kind is FileKind.DIRECTORY
        path = await life.cache.ensure(key)
    if node.kind == "memory":
        return
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    for directory in (node.cache_root, path.parent, path.parent.parent):
        assert directory.stat().st_mode & 0o777 == 0o750 & ~umask


@pytest.mark.parametrize("size_bytes", SIZES)
async def test_an_unchanged_object_costs_one_head_in_this_life_and_the_next(
    node: ObjectNode, size_bytes: int
) -> None:
    """S-K05: upstream takes any file there for the object, and never asks again."""
    key = await node.upload("w", content_of(size_bytes))
    async with node.live() as life:
        await life.cache.ensure(key)
        node.store.asked.clear()
        assert await life.cache.ensure(key) == node.cache_root / key
        assert node.store.asked == [f"HEAD {key}"]
    node.store.asked.clear()
    async with node.live(verify=False) as life:
        await life.cache.ensure(key)
    assert node.store.asked == [f"HEAD {key}"]


@pytest.mark.parametrize("size_bytes", SIZES)
async def test_a_changed_object_arrives_and_readers_keep_the_old_one(
    node: ObjectNode, size_bytes: int
) -> None:
    """S-K05, N-B22: a model that changed under its key keeps its old bytes for ever."""
    old, new = content_of(size_bytes), content_of(size_bytes, b"gfedcba")
    key = await node.upload("w", old)
    async with node.live() as life:
        path = await life.cache.ensure(key)
        reader = await node.filesystem.open_outgoing(
            RootedPath(node.cache_root, PurePosixPath(path.relative_to(node.cache_root)))
        )
        assert reader is not None
        await node.upload("w", new)  # of the same size
        assert await life.cache.ensure(key) == path
        assert b"".join([chunk async for chunk in reader.chunks()]) == old
    assert node.cached(key) == new
    assert node.hidden == []


async def test_what_a_go_worker_left_is_compared_by_hash(node: ObjectNode) -> None:
    """S-K05: its cache is taken over; what is right is not fetched again where ETags tell."""
    key = await node.upload("w", b"weights")
    node.scene.put(node.cache_root / key, b"weights")
    async with node.live() as life:
        await life.cache.ensure(key)
        compared, fetched = [f"HEAD {key}"], [f"HEAD {key}", f"GET {key}"]
        assert node.store.asked == (compared if node.etag_tells_content else fetched)
        for tampered in (b"tampered", b"w3ights"):
            node.scene.put(node.cache_root / key, tampered)
            await life.cache.ensure(key)
            assert node.cached(key) == b"weights"


async def test_requests_for_one_file_share_one_fetch(node: ObjectNode) -> None:
    """S-K10, S-1.3.10: upstream serves one ensure at a time."""
    key = await node.upload("w", b"weights")
    node.store.gates[f"GET {key}"] = anyio.Event()
    async with node.live() as life, anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(life.cache.ensure, key)
        await node.until_asked(f"GET {key}")
        node.store.gates[f"GET {key}"].set()
    assert node.store.asked == [f"GET {key}"]


async def test_a_download_holds_up_no_other_one(node: ObjectNode) -> None:
    """S-K10, N-B22: a ten-minute download blocks every other ensure of the node."""
    slow, quick = await node.upload("slow", b"slow"), await node.upload("quick", b"quick")
    node.store.gates[f"GET {slow}"] = anyio.Event()
    async with node.live() as life, anyio.create_task_group() as tasks:
        tasks.start_soon(life.cache.ensure, slow)
        await node.until_asked(f"GET {slow}")
        assert await life.cache.ensure(quick) == node.cache_root / quick
        assert node.cached(slow) is None
        node.store.gates[f"GET {slow}"].set()
    assert node.cached(slow) == b"slow"


async def test_a_fetch_outlives_the_request_that_began_it(node: ObjectNode) -> None:
    """N-B22: the frontend gave up; what it asks for again is the same fetch."""
    key = await node.upload("w", b"weights")
    node.store.gates[f"GET {key}"] = anyio.Event()
    async with node.live() as life:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(life.cache.ensure, key)
            await node.until_asked(f"GET {key}")
            tasks.cancel_scope.cancel()
        node.store.gates[f"GET {key}"].set()
        await life.cache.ensure(key)
    assert node.store.asked.count(f"GET {key}") == 1
    assert node.cached(key) == b"weights"


async def test_two_keys_of_one_path_take_turns(node: ObjectNode) -> None:
    """S-K10: `a//b` and `a/b` are two objects and one path; upstream mixes their temporary files."""
    if node.kind != "memory":
        pytest.skip("keys are paths in this store: it has no two such objects")
    one, two = await node.upload("a/b", b"one"), await node.upload("a//b", b"two")
    async with node.live() as life:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(life.cache.ensure, one)
            tasks.start_soon(life.cache.ensure, two)
        assert node.cached(one) == b"two"
        await life.cache.ensure(one)
        assert node.cached(one) == b"one"
    assert node.hidden == []


async def test_the_key_of_a_temporary_name_is_a_file_like_any_other(node: ObjectNode) -> None:
    """S-K10: upstream's temporary of `x` is the file of the key `x.tmp`."""
    keys = [await node.upload(rest, rest.encode()) for rest in ("x", "x.tmp")]
    async with node.live() as life, anyio.create_task_group() as tasks:
        for key in keys:
            tasks.start_soon(life.cache.ensure, key)
    assert [node.cached(key) for key in keys] == [b"x", b"x.tmp"]


async def test_a_directory_is_no_hit_and_is_told(node: ObjectNode) -> None:
    """S-K10, S-1.3.3: upstream answers with the directory."""
    key = await node.upload("phi", b"weights")
    node.scene.put(node.cache_root / key / "inside", b"")
    async with node.live() as life:
        with pytest.raises(DownloadFailed, match=r"a directory stands in the way|[Ii]s a directory"):
            await life.cache.ensure(key)
    assert node.hidden == []
    assert node.cached(f"{key}/inside") == b""


async def test_what_is_missing_is_told_with_its_key_and_the_old_file_stays(node: ObjectNode) -> None:
    """S-1.3.3, S-1.2.10: `downloading <key>: getting object <key>: ...`."""
    key = await node.upload("w", b"weights")
    absent = node.key("absent")
    async with node.live() as life:
        with pytest.raises(DownloadFailed) as caught:
            await life.cache.ensure(absent)
        assert str(caught.value).startswith(
            f"downloading {absent}: getting object {absent}: no such object in "
        )
        await life.cache.ensure(key)
        await node.store.delete(StagingKey(key))
        with pytest.raises(DownloadFailed, match=rf"^downloading {key}: head {key}: no such object in "):
            await life.cache.ensure(key)
    assert node.cached(key) == b"weights"
    assert node.names == {key}


async def test_a_store_out_of_reach_is_an_error_and_no_stale_file(node: ObjectNode) -> None:
    """S-K05, S-1.2.11: whether the file is fresh nobody can tell; it heals by itself."""
    key = await node.upload("w", b"weights")
    async with node.live() as life:
        await life.cache.ensure(key)
        node.unplug()
        with pytest.raises(DownloadFailed, match=rf"^downloading {key}: head {key}: "):
            await life.cache.ensure(key)
        assert life.health.worry.startswith(f"head {key}: ")
        assert life.health.worries == ("the object store cannot be used",)
        node.plug_in()
        await life.cache.ensure(key)
        assert life.health.worry == ""


async def test_an_object_that_is_damaged_does_not_appear(node: ObjectNode) -> None:
    """S-1.2.7: what the metadata say the bytes hash to counts; the old file stays."""
    if node.kind == "directory":
        pytest.skip("files have no metadata")
    key = await node.upload("w", b"weights")
    async with node.live() as life:
        await life.cache.ensure(key)
        await put_with_sha256(node, key, b"damaged", "0" * 64)
        with pytest.raises(DownloadFailed, match=r"sha256 mismatch: .* LOCALAI_STORAGE_VERIFY"):
            await life.cache.ensure(key)
    assert node.cached(key) == b"weights"
    assert node.hidden == []


async def put_with_sha256(node: ObjectNode, key: str, content: bytes, sha256: str) -> None:
    if isinstance(node.store.inner, InMemoryObjectStore):
        node.store.inner.store(key, content, sha256=sha256)
        return
    client = node.store.inner._client.get()  # type: ignore[attr-defined]
    client.put_object(Bucket="models", Key=key, Body=content, Metadata={"sha256": sha256})


KEYS_OF_FRONTENDS = [
    pytest.param("models/{}/phi-4.gguf", id="model"),
    pytest.param("models/{}/user/phi/sub/tokenizer.json", id="tracking-key-with-slash"),
    pytest.param("data/{}/job/model.gguf", id="data"),
    pytest.param("ephemeral/inputs/{}/image.png", id="input"),
    pytest.param("users/{}/assets/file", id="none-a-worker-sees"),
    pytest.param("ephemeral/fetch//{}/staging/out.tmp/output", id="fetch"),
    pytest.param("models/{}/sp\u00e4te Gr\u00f6\u00dfe/\u6a21\u578b +%20.gguf", id="unicode"),
    pytest.param("models/{}/" + "k" * 250, id="longest-name"),
]


@pytest.mark.parametrize("shape", KEYS_OF_FRONTENDS)
async def test_the_keys_that_frontends_make(node: ObjectNode, shape: str) -> None:
    """S-1.1.1, S-1.1.2, S-1.1.3, S-1.1.4, S-1.1.5, S-1.1.6, S-1.1.7: each lies under its key."""
    key = shape.format(node.prefix.removeprefix("models/").rstrip("/"))
    if node.kind == "rclone" and "//" in key:
        pytest.skip("a gateway to a directory: it answers such keys with an error of its own")
    await node.upload_as(key, key.encode())
    async with node.live() as life:
        path = await life.cache.ensure(key)
    assert path == node.cache_root / key.replace("//", "/")
    assert node.scene.get(path) == key.encode()
    assert node.hidden == []


@pytest.mark.parametrize("prefix", ["", "models/"])
async def test_the_longest_key_there_can_be_arrives(node: ObjectNode, prefix: str) -> None:
    """S-1.3.2: 1,024 bytes are S3's limit; what a store cannot keep is told with the key."""
    stem = f"{prefix}{node.prefix.removeprefix('models/')}"
    key = stem + "/".join(["k" * 200] * 6)[: 1024 - len(stem)]
    assert len(key) == 1024
    await node.upload_as(key, b"weights")
    async with node.live() as life:
        assert await life.cache.ensure(key) == node.cache_root / key
    assert node.cached(key) == b"weights"


BAD_KEYS = [
    pytest.param("", KeyEscapesCache, 'key "" escapes cache directory', id="empty"),
    pytest.param(".", KeyEscapesCache, 'key "." escapes cache directory', id="dot"),
    pytest.param("/", KeyEscapesCache, 'key "/" escapes cache directory', id="slash"),
    pytest.param("//", KeyEscapesCache, 'key "//" escapes cache directory', id="slashes"),
    pytest.param("..", KeyEscapesCache, 'key ".." escapes cache directory', id="up"),
    pytest.param("../x", KeyEscapesCache, 'key "../x" escapes cache directory', id="up-and-down"),
    pytest.param("models/../../x", KeyEscapesCache, 'key "models/../../x" escapes cache directory', id="out"),
    pytest.param("models/a/../b", InvalidKey, "it holds `..`", id="back"),
    pytest.param("models/a/", InvalidKey, "names a directory", id="directory"),
    pytest.param("nul\0", InvalidKey, "NUL", id="nul"),
    pytest.param("lone\ud800", InvalidKey, "UTF-8", id="surrogate"),
    pytest.param("n" * 256, InvalidKey, "a name in it has 256 bytes, file systems take 255", id="long-name"),
    pytest.param("k/" * 512 + "k", InvalidKey, "1025 bytes, an object store takes 1024", id="long-key"),
    pytest.param("models/.x.1.incoming", InvalidKey, "invalid key 'models/.x.1.incoming'", id="private"),
]


@pytest.mark.parametrize(("key", "error", "text"), BAD_KEYS)
async def test_keys_that_no_cached_file_can_have_are_refused(
    node: ObjectNode, key: str, error: type[Exception], text: str
) -> None:
    """S-1.3.2, S-1.4.1: in upstream's words where it has some; nothing is asked and nothing is written."""
    async with node.live() as life:
        with pytest.raises(error) as caught:
            await life.cache.ensure(key)
        assert text in str(caught.value)
    assert node.store.asked == []
    assert node.names == set()


async def test_the_name_of_a_directory_of_the_store_is_no_object(node: ObjectNode) -> None:
    """S-1.3.3: `models/x` while the store has `models/x/w`."""
    key = await node.upload("phi/w", b"weights")
    async with node.live() as life:
        with pytest.raises(DownloadFailed, match=r"no such object|names a directory"):
            await life.cache.ensure(key.removesuffix("/w"))
        assert node.names == set()
        await life.cache.ensure(key)
    assert node.names == {key}


async def test_a_deleted_model_leaves_the_cache_too(node: ObjectNode) -> None:
    """S-K06, N-B21, S-1.3.7: upstream removes the models directory's copy only; objects stay."""
    model = node.prefix.removeprefix("models/").rstrip("/")
    key = await node.upload("phi.gguf", b"weights")
    other = f"models/{model}-2/phi.gguf"
    await node.upload_as(other, b"other")
    node.scene.put(node.base / "models" / model / "phi.gguf", b"weights")
    outside = node.base / "outside"
    node.scene.put(outside, b"stays")
    async with node.live() as life:
        await life.cache.ensure(key)
        await life.cache.ensure(other)
        node.scene.link(node.cache_root / "models" / model / "link", outside)
        await life.deleting.delete(model)
        assert node.names == {other}
        assert node.scene.files(node.base / "models") == []
        assert node.scene.get(outside) == b"stays"
        await life.cache.ensure(key)  # the store still has it
    assert node.cached(key) == b"weights"


async def test_a_shut_down_cache_fetches_nothing(node: ObjectNode) -> None:
    """S-1.3.3: what waits for a gate when the worker ends is told so, and leaves nothing."""
    key = await node.upload("w", b"weights")
    node.store.gates[f"GET {key}"] = anyio.Event()
    said: list[str] = []

    async def ensure(life: Life) -> None:
        with pytest.raises(DownloadFailed) as caught:
            await life.cache.ensure(key)
        said.append(str(caught.value))

    async with anyio.create_task_group() as tasks, node.live() as life:
        tasks.start_soon(ensure, life)
        await node.until_asked(f"GET {key}")
    assert said == [f"downloading {key}: the object cache: this worker is shutting down"]
    assert node.names == set()
    with pytest.raises(DownloadFailed, match="this worker is shutting down"):
        await life.cache.ensure(key)
    with pytest.raises(ObjectMissing):
        await node.store.head(StagingKey(node.key("absent")))


@pytest.mark.parametrize("node", ["directory"], indirect=True)
async def test_an_object_written_to_while_it_is_read_is_no_mix(
    node: ObjectNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-K05: whoever shares the directory may write into the file that is there, under the same size."""
    old, new = content_of(3_000_000), content_of(3_000_000, b"gfedcba")
    key = await node.upload("w", old)
    stored = node.base.parent / "store" / key
    read = os.pread
    changed: list[bool] = []

    def read_while_it_changes(descriptor: int, size_bytes: int, at: int) -> bytes:
        content = read(descriptor, size_bytes, at)
        if at == 0 and not changed:
            changed.append(True)
            with stored.open("r+b") as file:
                file.write(new)
        return content

    monkeypatch.setattr(os, "pread", read_while_it_changes)
    async with node.live() as life:
        await life.cache.ensure(key)
    assert changed
    assert node.cached(key) == new
    assert node.hidden == []
