"""Snapshots on a real disk, from a real web server that speaks Hugging Face's API."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.memory.hardware import InMemoryHardware
from localai_worker.app.container import Container, settle_capability
from localai_worker.app.model_parts import prefetcher
from localai_worker.app.testing import memory_settings
from localai_worker.domain.bind_snapshots import BindSnapshots
from localai_worker.domain.errors import ArtifactUnavailable, DownloadRefused
from localai_worker.domain.ports.filesystem import RootedPath
from localai_worker.domain.prefetched_files import PrefetchedFiles
from localai_worker.domain.snapshot_layout import lock_path
from localai_worker.domain.snapshot_spec import SnapshotSpec
from localai_worker.domain.yaml_values import YamlValue
from tests.snapshots import OURS, HubOnWeb, on_disk
from tests.web import Page, web_server

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
FILES = {
    "config.json": b'{"layers": 2}',
    "model.safetensors": WEIGHTS,
    "sub dir/vocab#1.txt": b"a\nb\n",
    "README.md": b"# model\n",
}
CONFIG: dict[str, YamlValue] = {"backend": "transformers", "parameters": {"model": "hf://owner/repo"}}


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def hub() -> Iterator[HubOnWeb]:
    with web_server() as web, web_server() as store:
        yield HubOnWeb(web, store)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def service(models: Path, hub: HubOnWeb, token: str = "") -> BindSnapshots:
    return on_disk(models, hub.endpoint, PrefetchedFiles(LocalFileSystem(), models), token=token)


def tree(top: Path) -> dict[str, tuple[str, bytes | None]]:
    return {
        path.relative_to(top).as_posix(): (
            f"{stat.S_IMODE(path.stat().st_mode):04o}",
            path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(top.rglob("*"))
    }


async def test_a_repository_lands_as_upstream_lays_it_out(hub: HubOnWeb, models: Path) -> None:
    """M-5.1, M-5.2, M-5.3: over pages, and from another host for large files."""
    commit = hub.publish("owner/repo", FILES, large=["model.safetensors"], page_size=2)
    config = await service(models, hub).bind("m", CONFIG)
    artifacts = config["artifacts"]
    assert isinstance(artifacts, list)
    found = SnapshotSpec.from_mapping(artifacts[0])  # type: ignore[arg-type]
    assert found.key_is_right
    assert found.resolved is not None
    assert (found.resolved.endpoint, found.resolved.revision) == (hub.endpoint, commit)
    key = found.resolved.cache_key
    top = f"huggingface/{key}"
    manifest = models / ".artifacts" / top / "manifest.json"
    assert tree(models / ".artifacts") == {
        ".locks": ("0750", None),
        f".locks/{key}.lock": ("0600", b""),
        ".partial": ("0750", None),
        "huggingface": ("0750", None),
        top: ("0750", None),
        f"{top}/manifest.json": ("0644", manifest.read_bytes()),
        f"{top}/snapshot": ("0750", None),
        f"{top}/snapshot/sub dir": ("0750", None),
        **{f"{top}/snapshot/{path}": ("0600", content) for path, content in FILES.items()},
    }
    told = json.loads(manifest.read_bytes())
    assert [each["path"] for each in told["files"]] == sorted(FILES)
    assert [list(each) for each in told["files"]] == [
        ["path", "size", "sha256", "blob_oid"],
        ["path", "size", "sha256", "blob_oid"],
        ["path", "size", "sha256", "blob_oid", "lfs_oid", "xet_hash"],
        ["path", "size", "sha256", "blob_oid"],
    ]


async def test_a_second_boot_fetches_nothing(hub: HubOnWeb, models: Path) -> None:
    """M-5.3: only the version and the list are asked for."""
    hub.publish("owner/repo", FILES, large=["model.safetensors"])
    first = await service(models, hub).bind("m", CONFIG)
    before = tree(models)
    hub.web.visits.clear()
    hub.store.visits.clear()
    assert await service(models, hub).bind("m", CONFIG) == first
    assert tree(models) == before
    assert all(path.startswith("/api/models/owner/repo/") for path in hub.web.paths())
    assert hub.store.visits == []


async def test_a_transfer_that_broke_goes_on_at_the_next_boot(hub: HubOnWeb, models: Path) -> None:
    """M-5.3."""
    commit = hub.publish("owner/repo", FILES, large=["model.safetensors"])
    (name,) = hub.store.pages
    whole = hub.store.pages[name]
    hub.store.pages[name] = Page(WEIGHTS[:300_000], headers={"Content-Length": str(len(WEIGHTS))})
    spec = SnapshotSpec(repository="owner/repo")
    first = service(models, hub)
    first.snapshots.builder.download.attempts = 1
    with pytest.raises(ArtifactUnavailable):
        await first.snapshots.ensure(spec)
    (partial,) = (models / ".artifacts/.partial").iterdir()
    assert partial.name.endswith(f".{OURS}")
    hub.store.pages[name] = whole
    hub.web.visits.clear()
    hub.store.visits.clear()
    await service(models, hub).snapshots.ensure(spec)
    assert [visit.headers.get("range") for visit in hub.store.visits] == ["bytes=300000-"]
    fetched = [path for path in hub.web.paths() if "/resolve/" in path]
    assert hub.file_path("owner/repo", commit, "model.safetensors") in fetched
    assert list((models / ".artifacts/.partial").iterdir()) == []


async def test_a_gated_repository_comes_with_the_token_and_nobody_else_sees_it(
    hub: HubOnWeb, models: Path
) -> None:
    """M-5.2: upstream's worker never has one."""
    hub.publish("owner/gated", FILES, large=["model.safetensors"], page_size=2, token="hf_secret")
    spec = SnapshotSpec(repository="owner/gated", token_variable="HF_TOKEN")
    await service(models, hub, token="hf_secret").snapshots.ensure(spec)
    assert {visit.headers.get("authorization") for visit in hub.web.visits} == {"Bearer hf_secret"}
    assert [visit.headers.get("authorization") for visit in hub.store.visits] == [None]
    assert not any(b"hf_secret" in content for _, content in tree(models).values() if content)
    with pytest.raises(DownloadRefused, match="name its token"):
        await service(models, hub).snapshots.ensure(SnapshotSpec(repository="owner/gated"))


async def test_an_abandoned_tree_is_taken_over_on_a_real_disk(hub: HubOnWeb, models: Path) -> None:
    """M-5.3: the age is that of the youngest thing in it."""
    commit = hub.publish("owner/repo", FILES, large=["model.safetensors"])
    found = SnapshotSpec(repository="owner/repo").found_at(hub.endpoint, commit).resolved
    assert found is not None
    theirs = models / f".artifacts/.partial/{found.cache_key}.{'0' * 16}"
    (theirs / "snapshot").mkdir(parents=True)
    (theirs / "snapshot/model.safetensors").write_bytes(WEIGHTS)
    spec = SnapshotSpec(repository="owner/repo")
    for path in [theirs, *theirs.rglob("*")]:
        age(path, minutes=6)
    await service(models, hub).snapshots.ensure(spec)
    assert not theirs.exists()
    assert hub.store.visits == []


def age(path: Path, *, minutes: float) -> None:
    then = path.stat().st_mtime - minutes * 60
    os.utime(path, (then, then))


async def test_the_lock_is_one_that_other_processes_see(hub: HubOnWeb, models: Path) -> None:
    """M-5.3."""
    hub.publish("owner/repo", FILES)
    binder = service(models, hub)
    manifest = await binder.snapshots.ensure(SnapshotSpec(repository="owner/repo"))
    assert manifest.spec.resolved is not None
    place = RootedPath(models, lock_path(manifest.spec.resolved.cache_key))
    lock = await binder.snapshots.locks.take(place)
    assert lock is not None
    assert await service(models, hub).snapshots.locks.take(place) is None
    await lock.release()


async def test_a_worker_prefetches_a_repository_with_the_settings_of_its_environment(
    hub: HubOnWeb, tmp_path: Path
) -> None:
    """M-5.1, M-5.2, S-W34: `HF_ENDPOINT`, `HF_TOKEN` and a gallery on disk."""
    hub.publish("owner/gated", FILES, token="hf_secret")
    models = tmp_path / "models"
    models.mkdir()
    source = {"type": "huggingface", "repo": "owner/gated", "token_env": "HF_TOKEN"}
    entry = {"name": "m", "overrides": {"backend": "vllm", "artifacts": [{"source": source}]}}
    (models / "index.yaml").write_text(json.dumps([entry]))
    galleries = json.dumps([{"name": "site", "url": f"file://{models}/index.yaml"}])
    settings = memory_settings(
        LOCALAI_PREFETCH_MODELS="m",
        LOCALAI_GALLERIES=galleries,
        LOCALAI_MODELS_PATH=str(models),
        LOCALAI_WORKER_STATE_PATH=str(tmp_path / "state"),
    )
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": " hf_secret\n"}
    container = Container(settings=settings, environment=environment)
    container.hardware.override(InMemoryHardware())
    await settle_capability(container)
    custody = container.custody()
    await custody.take()
    try:
        await prefetcher(container)()
    finally:
        await custody.give_back(backends_stay=False)
    assert "cache_key" in (models / "m.yaml").read_text()
    (snapshot,) = (models / ".artifacts/huggingface").iterdir()
    assert (snapshot / "snapshot/model.safetensors").read_bytes() == WEIGHTS
