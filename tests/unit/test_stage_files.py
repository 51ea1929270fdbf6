"""Staging results into the store, temporaries and lists, over real files with real links and in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.filesystem.ranged_files import LocalRangedFiles
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.object_store import InMemoryObjectStore
from localai_worker.adapters.memory.ranged_files import InMemoryRangedFiles
from localai_worker.domain import stage_files
from localai_worker.domain.errors import FileUnreadable, PathEscapes
from localai_worker.domain.stage_files import (
    InvalidKeyPrefix,
    PathNotAllowed,
    StageFiles,
    UnreadableForUpload,
    UploadFailed,
)
from localai_worker.domain.store_health import StoreHealth
from localai_worker.domain.validate_paths import FileRoots, InvalidKey


@dataclass
class Case:
    staging: StageFiles
    store: InMemoryObjectStore
    base: Path
    put: Callable[[Path, bytes], None]
    link: Callable[[Path, Path], None]


@pytest.fixture(params=["memory", "local"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    store = InMemoryObjectStore()
    base = tmp_path / "node"
    roots = FileRoots(base / "models", base / "data", base / "staging")
    health = StoreHealth(store)
    if request.param == "memory":
        memory = InMemoryFileSystem()
        staging = StageFiles(store, memory, InMemoryRangedFiles(memory), health, roots, base / "cache")
        return Case(staging, store, base, memory.put, memory.link)
    staging = StageFiles(store, LocalFileSystem(), LocalRangedFiles(), health, roots, base / "cache")
    return Case(staging, store, base, put_on_disk, link_on_disk)


def put_on_disk(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def link_on_disk(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("directory", ["cache/staging-tmp", "models/phi", "data/quantization", "staging"])
async def test_files_of_every_directory_of_the_worker_are_staged(case: Case, directory: str) -> None:
    """S-K07, N-B20: upstream takes cache and models only."""
    case.put(case.base / directory / "out.bin", b"result")
    await case.staging.stage(str(case.base / directory / "out.bin"), "data/job/out.bin")
    assert case.store.content("data/job/out.bin") == b"result"


async def test_a_models_directory_that_is_a_link_is_taken_by_both_its_names(case: Case) -> None:
    """S-K08, N-B20: upstream resolves the path, not its root, and refuses everything."""
    case.put(case.base / "big-disk" / "phi" / "out.bin", b"result")
    case.link(case.base / "models", case.base / "big-disk")
    for name in ("models", "big-disk"):
        await case.staging.stage(str(case.base / name / "phi" / "out.bin"), f"{name}/out.bin")
        assert case.store.content(f"{name}/out.bin") == b"result"


@pytest.mark.parametrize(
    ("lies", "asked"),
    [
        ("data/quantization/job/model.gguf", "/data/quantization/job/model.gguf"),
        ("models/tuned/adapter.bin", "/models/tuned/adapter.bin"),
        ("cache/models/tuned/adapter.bin", "/models/tuned/adapter.bin"),
    ],
)
async def test_paths_that_frontends_make_from_keys_mean_the_directories(
    case: Case, lies: str, asked: str
) -> None:
    """S-K07, N-B20: a quantization result is asked for as `/data/...`, which upstream refuses."""
    case.put(case.base / lies, b"result")
    await case.staging.stage(asked, asked.lstrip("/"))
    assert case.store.content(asked.lstrip("/")) == b"result"


async def test_paths_outside_are_refused_in_the_words_of_upstream(case: Case) -> None:
    case.put(case.base / "secret", b"secret")
    case.put(case.base / "models-other" / "file", b"secret")
    case.put(case.base / "models" / "file", b"fine")
    case.link(case.base / "models" / "link", case.base / "secret")
    case.link(case.base / "models" / "directory", case.base / "models-other")
    outside = [
        "/etc/passwd",
        "",
        "models/file",
        str(case.base / "secret"),
        str(case.base / "models" / ".." / "secret"),
        str(case.base / "models-other" / "file"),
        str(case.base / "models" / "link"),
        str(case.base / "models" / "directory" / "file"),
        "/models/../secret",
        "/data/../../secret",
        "nul\0",
    ]
    for path in outside:
        with pytest.raises(PathNotAllowed, match=r"^path outside allowed directories$"):
            await case.staging.stage(path, "key")
    assert case.store.objects == {}


async def test_what_cannot_be_read_is_told(case: Case) -> None:
    case.put(case.base / "models" / "phi" / "file", b"")
    for path, reason in (
        ("models/phi", "directory"),
        ("models", "directory"),
        ("models/absent", "no such file"),
    ):
        with pytest.raises(UnreadableForUpload, match=f"opening .* for upload: .*{reason}"):
            await case.staging.stage(str(case.base / path), "key")
    assert case.store.objects == {}


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "it is empty"),
        ("k" * 1025, "1025 bytes, an object store takes 1024"),
        ("a/../b", "it holds `..`"),
        ("a/", "names a directory"),
        ("nul\0", "NUL"),
        ("lone\ud800", "UTF-8"),
    ],
)
async def test_keys_that_no_object_can_have_are_refused(case: Case, key: str, reason: str) -> None:
    case.put(case.base / "models" / "file", b"")
    with pytest.raises(InvalidKey, match=reason):
        await case.staging.stage(str(case.base / "models" / "file"), key)


async def test_a_double_slash_as_frontends_make_it_is_fine(case: Case) -> None:
    path = case.base / "cache" / "staging-tmp" / "out"
    case.put(path, b"result")
    key = f"ephemeral/fetch/{path}/output"
    assert "//" in key
    await case.staging.stage(str(path), key)
    assert case.store.content(key) == b"result"


async def test_a_store_out_of_reach_is_told_and_looked_after(case: Case) -> None:
    case.put(case.base / "models" / "file", b"")
    case.store.offline = True
    path = case.base / "models" / "file"
    with pytest.raises(UploadFailed) as caught:
        await case.staging.stage(str(path), "key")
    assert str(caught.value).startswith(f"uploading {path} to key: putting object key: ")
    assert "offline" in case.staging.health.worry


async def test_an_upload_has_a_bound(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.put(case.base / "models" / "file", b"12345")
    case.store.block_s = 3600
    monkeypatch.setattr(stage_files, "STAGE_S", 0.01)
    with pytest.raises(UploadFailed, match=r"5 bytes were not sent within 0.01 s"):
        await case.staging.stage(str(case.base / "models" / "file"), "key")


async def test_a_temporary_is_empty_unique_and_may_be_staged(case: Case) -> None:
    """N-B22: as upstream's, but swept when a day has passed."""
    one, other = await case.staging.new_temporary(), await case.staging.new_temporary()
    assert one != other
    assert one.parent == case.base / "cache" / "staging-tmp"
    assert one.name.startswith("localai-staging-")
    assert one.suffix == ".tmp"
    await case.staging.stage(str(one), "ephemeral/out")
    assert case.store.content("ephemeral/out") == b""


async def test_lists_are_of_the_directory_that_the_prefix_names(case: Case) -> None:
    case.put(case.base / "models" / "phi" / "b", b"")
    case.put(case.base / "models" / "phi" / "a" / "c", b"")
    case.put(case.base / "models" / "phi" / ".b.1.incoming", b"")
    case.put(case.base / "data" / "job" / "model.gguf", b"")
    case.put(case.base / "cache" / "models" / "x", b"")
    listed = [tuple(map(str, await case.staging.list_files(key))) for key in ("models/phi", "data/job", "")]
    assert listed == [("a/c", "b"), ("model.gguf",), ("models/x",)]


async def test_lists_stay_inside(case: Case) -> None:
    """N-B21: upstream looks at names only: a link leads out, a root that is a link is not walked."""
    case.put(case.base / "outside" / "secret", b"")
    case.put(case.base / "big-disk" / "phi" / "w", b"")
    case.link(case.base / "models", case.base / "big-disk")
    case.link(case.base / "cache" / "leak", case.base / "outside")
    assert tuple(map(str, await case.staging.list_files("models/phi"))) == ("w",)
    for prefix in ("..", "models/../..", "data/..", "nul\0"):
        with pytest.raises(InvalidKeyPrefix, match=r"^invalid key prefix$"):
            await case.staging.list_files(prefix)
    with pytest.raises(PathEscapes):
        await case.staging.list_files("leak")
    for prefix in ("models/absent", "models/phi/w"):
        with pytest.raises(FileUnreadable):
            await case.staging.list_files(prefix)
