"""`files.stage`, `files.temp` and `files.listdir` over every store, on its node's disk with real links."""

import os
from datetime import UTC, datetime

import anyio
import pytest

from localai_worker.adapters.s3.object_store import S3ObjectStore
from localai_worker.domain import stage_files
from localai_worker.domain.errors import FileUnreadable, PathEscapes
from localai_worker.domain.stage_files import (
    InvalidKeyPrefix,
    PathNotAllowed,
    UnreadableForUpload,
    UploadFailed,
)
from localai_worker.domain.validate_paths import InvalidKey
from tests.objects.nodes import ObjectNode
from tests.s3_servers import BUCKET


@pytest.mark.parametrize("directory", ["cache/staging-tmp", "models/phi", "data/quantization", "staging"])
async def test_files_of_every_directory_of_the_worker_are_staged(node: ObjectNode, directory: str) -> None:
    """S-K07, N-B20, S-1.4.2: upstream takes cache and models only."""
    path, key = node.base / directory / "out.bin", node.key("out.bin")
    node.scene.put(path, b"result")
    async with node.live() as life:
        await life.staging.stage(str(path), key)
    assert await node.stored(key) == b"result"


async def test_a_models_directory_that_is_a_link_is_taken_by_both_its_names(node: ObjectNode) -> None:
    """S-K08, N-B20: upstream resolves the path, not its root, and refuses everything."""
    node.scene.put(node.base / "big-disk" / "phi" / "out.bin", b"result")
    node.scene.link(node.base / "models", node.base / "big-disk")
    async with node.live() as life:
        for name in ("models", "big-disk"):
            await life.staging.stage(str(node.base / name / "phi" / "out.bin"), node.key(name))
            assert await node.stored(node.key(name)) == b"result"


PATHS_OF_FRONTENDS = [
    pytest.param("data/quantization/{}.gguf", "/data/quantization/{}.gguf", id="data"),
    pytest.param("models/tuned/{}.bin", "/models/tuned/{}.bin", id="models"),
    pytest.param("cache/models/tuned/{}.bin", "/models/tuned/{}.bin", id="cached"),
]


@pytest.mark.parametrize(("lies", "asked"), PATHS_OF_FRONTENDS)
async def test_paths_that_frontends_make_from_keys_mean_the_directories(
    node: ObjectNode, lies: str, asked: str
) -> None:
    """S-K07, N-B20, S-1.1.3, S-1.1.4, S-1.5.7: a result is asked for as `/data/...`."""
    unique = node.prefix.split("/")[1]
    path, key = asked.format(unique), asked.format(unique).lstrip("/")
    node.scene.put(node.base / lies.format(unique), b"result")
    async with node.live() as life:
        await life.staging.stage(path, key)
    assert await node.stored(key) == b"result"


async def test_what_is_staged_tells_when(node: ObjectNode) -> None:
    """S-1.2.8: the frontend's cleaner of `ephemeral/` reads `created-at`."""
    if not isinstance(node.store.inner, S3ObjectStore):
        pytest.skip("no metadata in this store")
    node.scene.put(node.base / "staging" / "out", b"result")
    async with node.live() as life:
        await life.staging.stage(str(node.base / "staging" / "out"), node.key("out"))
    client = node.store.inner._client.get()
    metadata = client.head_object(Bucket=BUCKET, Key=node.key("out"))["Metadata"]
    named = {name.lower(): text for name, text in metadata.items()}  # a header's letters have no case
    created = datetime.strptime(named["created-at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((created - node.clock.now()).total_seconds()) < 300


async def test_paths_outside_are_refused_in_the_words_of_upstream(node: ObjectNode) -> None:
    """S-1.4.2, N-B20: outside, by a link out, by `..`, relative, empty; nothing is stored."""
    base = node.base
    node.scene.put(base / "secret", b"secret")
    node.scene.put(base / "models-other" / "file", b"secret")
    node.scene.put(base / "models" / "file", b"fine")
    node.scene.link(base / "models" / "link", base / "secret")
    node.scene.link(base / "models" / "directory", base / "models-other")
    outside = [
        "/etc/passwd",
        "",
        ".",
        "/",
        "models/file",
        str(base / "secret"),
        str(base / "models" / ".." / "secret"),
        str(base / "models-other" / "file"),
        str(base / "models" / "link"),
        str(base / "models" / "directory" / "file"),
        "/models/../secret",
        "/data/../../secret",
        "nul\0",
    ]
    async with node.live() as life:
        for path in outside:
            with pytest.raises(PathNotAllowed, match=r"^path outside allowed directories$"):
                await life.staging.stage(path, node.key("out"))
    assert await node.stored_keys() == ()


async def test_what_cannot_be_read_is_told(node: ObjectNode) -> None:
    """S-1.3.4, S-1.4.2: a directory, a root, what is not there: `opening <path> for upload: ...`."""
    node.scene.put(node.base / "models" / "phi" / "file", b"")
    async with node.live() as life:
        for path, reason in (
            ("models/phi", "directory"),
            ("models", "directory"),
            ("models/absent", "no such file"),
        ):
            whole = str(node.base / path)
            with pytest.raises(UnreadableForUpload) as caught:
                await life.staging.stage(whole, node.key("out"))
            assert str(caught.value).startswith(f"opening {whole} for upload: ")
            assert reason in str(caught.value)
    assert await node.stored_keys() == ()


async def test_a_file_that_vanishes_while_it_is_sent_is_sent_whole(node: ObjectNode) -> None:
    """S-1.4.2: it was opened once, by its inode; what a backend removes meanwhile is stored as it was."""
    path, key = node.base / "staging" / "out", node.key("out")
    node.scene.put(path, b"result")
    node.store.gates[f"PUT {key}"] = anyio.Event()
    async with node.live() as life, anyio.create_task_group() as tasks:
        tasks.start_soon(life.staging.stage, str(path), key)
        await node.until_asked(f"PUT {key}")
        await node.filesystem.remove_tree(path)
        node.store.gates[f"PUT {key}"].set()
    assert await node.stored(key) == b"result"
    async with node.live() as life:
        with pytest.raises(UnreadableForUpload, match="no such file"):
            await life.staging.stage(str(path), key)
    assert await node.stored(key) == b"result"


async def test_a_file_that_is_cut_while_it_is_sent_is_not_stored(node: ObjectNode) -> None:
    """S-1.3.4: half a result is none; the object that was there stays."""
    if node.kind == "memory":
        pytest.skip("a file is opened with its content there")
    path, key = node.base / "staging" / "out", await node.upload("out", b"old")
    node.scene.put(path, b"result" * 1000)
    node.store.gates[f"PUT {key}"] = anyio.Event()
    async with node.live() as life, anyio.create_task_group() as tasks:

        async def stage() -> None:
            with pytest.raises(UploadFailed, match=r"it became shorter than 6000 bytes"):
                await life.staging.stage(str(path), key)

        tasks.start_soon(stage)
        await node.until_asked(f"PUT {key}")
        os.truncate(path, 10)
        node.store.gates[f"PUT {key}"].set()
    assert await node.stored(key) == b"old"
    assert await node.stored_keys() == (key,)


BAD_KEYS = [
    pytest.param("", "it is empty", id="empty"),
    pytest.param("k" * 1025, "1025 bytes, an object store takes 1024", id="too-long"),
    pytest.param("a/../b", "it holds `..`", id="dots"),
    pytest.param("..", "it holds `..`", id="up"),
    pytest.param("a/", "names a directory", id="directory"),
    pytest.param("nul\0", "NUL", id="nul"),
    pytest.param("lone\ud800", "UTF-8", id="surrogate"),
]


@pytest.mark.parametrize(("key", "reason"), BAD_KEYS)
async def test_keys_that_no_object_can_have_are_refused(node: ObjectNode, key: str, reason: str) -> None:
    """S-1.4.2: upstream checks no key at all."""
    node.scene.put(node.base / "models" / "file", b"")
    async with node.live() as life:
        with pytest.raises(InvalidKey, match=reason):
            await life.staging.stage(str(node.base / "models" / "file"), key)
    assert node.store.asked == []


@pytest.mark.parametrize("shape", ["a//b", "sp\u00e4te/\u6a21\u578b +%20.gguf", "long"])
async def test_odd_keys_are_stored_as_they_are(node: ObjectNode, shape: str) -> None:
    """S-1.1.6, S-1.4.2: a double slash as frontends make it, letters of the world, 1,024 bytes."""
    if node.kind == "rclone" and "//" in shape:
        pytest.skip("a gateway to a directory: it answers such keys with an error of its own")
    shape = "/".join(["k" * 200] * 6) if shape == "long" else shape
    key = node.key(shape)[:1024]
    node.scene.put(node.base / "staging" / "out", b"result")
    async with node.live() as life:
        await life.staging.stage(str(node.base / "staging" / "out"), key)
    assert await node.stored(key) == b"result"


async def test_an_output_is_fetched_under_the_key_that_holds_its_path(node: ObjectNode) -> None:
    """S-1.1.6, S-1.5.6: `ephemeral/fetch/<absolute path>/output`, with its double slash."""
    if node.kind == "rclone":
        pytest.skip("a gateway to a directory: it answers such keys with an error of its own")
    async with node.live() as life:
        path = await life.staging.new_temporary()
        node.scene.put(path, b"result")
        key = f"ephemeral/fetch/{path}/output"
        assert "//" in key
        await life.staging.stage(str(path), key)
    assert await node.stored(key) == b"result"


async def test_an_absolute_key_is_a_key_like_any_other(node: ObjectNode) -> None:
    """S-1.4.2: upstream stores it as it is; so do we, and read back it is the same."""
    if node.kind == "rclone":
        pytest.skip("a gateway to a directory: it answers such keys with an error of its own")
    node.scene.put(node.base / "staging" / "out", b"result")
    key = f"/{node.key('out')}"
    async with node.live() as life:
        await life.staging.stage(str(node.base / "staging" / "out"), key)
        assert await life.cache.ensure(key) == node.cache_root / key.lstrip("/")
    assert node.cached(key.lstrip("/")) == b"result"


async def test_a_store_out_of_reach_is_told_and_looked_after(node: ObjectNode) -> None:
    """S-1.3.4, S-1.2.10: `uploading <path> to <key>: putting object <key>: ...`."""
    path, key = node.base / "models" / "file", node.key("out")
    node.scene.put(path, b"")
    async with node.live() as life:
        node.unplug()
        with pytest.raises(UploadFailed) as caught:
            await life.staging.stage(str(path), key)
        assert str(caught.value).startswith(f"uploading {path} to {key}: putting object {key}: ")
        assert life.health.worry
        node.plug_in()
        await life.staging.stage(str(path), key)
        assert life.health.worry == ""


async def test_an_upload_has_a_bound(node: ObjectNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-1.4.2: the frontend waits ten minutes and no longer."""
    path, key = node.base / "models" / "file", node.key("out")
    node.scene.put(path, b"12345")
    node.store.gates[f"PUT {key}"] = anyio.Event()
    monkeypatch.setattr(stage_files, "STAGE_S", 0.01)
    async with node.live() as life:
        with pytest.raises(UploadFailed, match=r"5 bytes were not sent within 0.01 s"):
            await life.staging.stage(str(path), key)
    assert await node.stored_keys() == ()


async def test_a_temporary_is_empty_unique_and_may_be_staged(node: ObjectNode) -> None:
    """S-1.4.3, N-B22: as upstream's, but swept when a day has passed."""
    async with node.live() as life:
        one, other = await life.staging.new_temporary(), await life.staging.new_temporary()
        assert one != other
        assert one.parent == node.base / "cache" / "staging-tmp"
        assert (one.name[:16], one.suffix) == ("localai-staging-", ".tmp")
        assert node.scene.get(one) == b""
        await life.staging.stage(str(one), node.key("out"))
    assert await node.stored(node.key("out")) == b""


async def test_lists_are_of_the_directory_that_the_prefix_names(node: ObjectNode) -> None:
    """S-1.4.4: recursive, files only, in order, relative; what the worker keeps for itself is left out."""
    base = node.base
    node.scene.put(base / "models" / "phi" / "b", b"")
    node.scene.put(base / "models" / "phi" / "a" / "c", b"")
    node.scene.put(base / "models" / "phi" / ".b.1.incoming", b"")
    node.scene.put(base / "data" / "job" / "model.gguf", b"")
    async with node.live() as life:
        await life.cache.ensure(await node.upload("x", b"x"))
        prefixes = ("models/phi", "data/job", "", "//", ".")
        listed = [tuple(map(str, await life.staging.list_files(prefix))) for prefix in prefixes]
    assert listed == [("a/c", "b"), ("model.gguf",), *[(node.key("x"),)] * 3]


async def test_lists_stay_inside(node: ObjectNode) -> None:
    """N-B21, S-1.4.4: upstream looks at names only: a link leads out, a root that is a link is not walked."""
    base = node.base
    node.scene.put(base / "outside" / "secret", b"")
    node.scene.put(base / "big-disk" / "phi" / "w", b"")
    node.scene.link(base / "models", base / "big-disk")
    node.scene.link(base / "cache" / "leak", base / "outside")
    async with node.live() as life:
        assert tuple(map(str, await life.staging.list_files("models/phi"))) == ("w",)
        for prefix in ("..", "../outside", "models/../..", "models/..", "data/..", "nul\0"):
            with pytest.raises(InvalidKeyPrefix, match=r"^invalid key prefix$"):
                await life.staging.list_files(prefix)
        with pytest.raises(PathEscapes):
            await life.staging.list_files("leak")
        for prefix in ("models/absent", "models/phi/w"):
            with pytest.raises(FileUnreadable):
                await life.staging.list_files(prefix)
