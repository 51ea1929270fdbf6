"""Snapshots of repositories, in memory and virtual time: whole, verified, made once, gone on with."""

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

import anyio
import pytest

from localai_worker.adapters.memory.downloads import InMemoryDownloads
from localai_worker.adapters.memory.file_locks import InMemoryFileLocks
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.loop_clock import LoopClock
from localai_worker.adapters.memory.model_hub import InMemoryModelHub
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.download_file import DownloadFile
from localai_worker.domain.ensure_snapshot import EnsureSnapshot, SnapshotInWork
from localai_worker.domain.errors import (
    ArtifactInvalid,
    ArtifactMissing,
    ArtifactUnavailable,
    DownloadRefused,
    NoSpace,
    PathEscapes,
    WorkerError,
)
from localai_worker.domain.hub_files import file_url
from localai_worker.domain.ports.downloads import Download
from localai_worker.domain.ports.filesystem import RootedPath
from localai_worker.domain.ports.model_hub import HubFile
from localai_worker.domain.snapshot_layout import lock_path, tree_path
from localai_worker.domain.snapshot_manifest import Manifest
from localai_worker.domain.snapshot_spec import InvalidSnapshotSpec, Resolved, SnapshotSpec
from tests.snapshots import MODELS, OURS, THEIRS, Parts, ensure_snapshot

REPOSITORY = "owner/repo"
SPEC = SnapshotSpec(repository=REPOSITORY)
WEIGHTS = bytes(range(256)) * 200
FILES = {"config.json": b'{"layers": 2}', "model.safetensors": WEIGHTS, "tokenizer/vocab.txt": b"a\nb\n"}
LARGE = ("model.safetensors",)


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


class Node:
    def __init__(self) -> None:
        self.clock = LoopClock()
        self.filesystem = InMemoryFileSystem(clock=self.clock)
        self.web = InMemoryDownloads()
        self.hub = InMemoryModelHub(self.web)
        self.locks = InMemoryFileLocks(self.filesystem)
        self.commit = self.hub.publish(REPOSITORY, FILES, large=LARGE)
        self.key = key_of(SPEC, self.commit)

    def service(self, writer: str = OURS, *, token: str = "", floor_bytes: int = 0) -> EnsureSnapshot:
        download = DownloadFile(self.filesystem, self.web, attempts=1, floor_bytes=floor_bytes)
        parts = Parts(self.filesystem, self.hub, download, self.locks, self.clock)
        return ensure_snapshot(parts, MODELS, writer=writer, token=token)

    async def ensure(self, spec: SnapshotSpec = SPEC) -> Manifest:
        return await self.service().ensure(spec)

    async def failure(self, spec: SnapshotSpec = SPEC, service: EnsureSnapshot | None = None) -> WorkerError:
        with pytest.raises(WorkerError) as caught:
            await (service or self.service()).ensure(spec)
        return caught.value

    def url(self, path: str) -> str:
        return file_url(self.hub.endpoint, REPOSITORY, self.commit, path)

    def content(self, path: str, key: str = "") -> bytes | None:
        key = key or self.key
        return self.filesystem.get(MODELS / f".artifacts/huggingface/{key}/snapshot/{path}")

    async def inode(self) -> int:
        """Which directory the snapshot is."""
        return await self.filesystem.directory_inode(MODELS / f".artifacts/huggingface/{self.key}")

    @property
    def files(self) -> list[str]:
        return [str(path.relative_to(MODELS)) for path in self.filesystem.files(MODELS)]

    @property
    def asked(self) -> list[tuple[str, int]]:
        return [(url.rpartition(f"{self.commit}/")[2], start) for url, start in self.web.asked]


def key_of(spec: SnapshotSpec, commit: str) -> str:
    found = spec.found_at("https://huggingface.co", commit).resolved
    assert found is not None
    return found.cache_key


@pytest.fixture
def node() -> Node:
    return Node()


async def test_a_repository_comes_whole_with_its_manifest(node: Node) -> None:
    """M-5.2, M-5.3."""
    manifest = await node.ensure()
    top = f".artifacts/huggingface/{node.key}"
    assert node.files == [
        f".artifacts/.locks/{node.key}.lock",
        f"{top}/manifest.json",
        *(f"{top}/snapshot/{path}" for path in sorted(FILES)),
    ]
    assert {path: node.content(path) for path in FILES} == FILES
    assert [(each.file.path, each.sha256) for each in manifest.files] == [
        (path, hashlib.sha256(FILES[path]).hexdigest()) for path in sorted(FILES)
    ]
    assert node.filesystem.get(MODELS / top / "manifest.json") == manifest.to_json()
    assert node.filesystem.mode_of(MODELS / top / "snapshot/config.json") == 0o600
    assert node.filesystem.mode_of(MODELS / top / "manifest.json") == 0o644
    assert manifest.spec.resolved == Resolved(
        endpoint="https://huggingface.co", revision=node.commit, cache_key=node.key
    )


async def test_one_file_alone_is_named_as_what_the_backend_loads(node: Node) -> None:
    """M-5.3: not for a companion, whose configuration upstream would refuse then."""
    spec = SnapshotSpec(repository=REPOSITORY, allow=("*.safetensors",))
    companion = replace(spec, name="vae", target="companion")
    for wanted, primary in ((spec, "model.safetensors"), (companion, ""), (spec, "model.safetensors")):
        found = (await node.ensure(wanted)).spec
        assert found.resolved is not None
        assert found.resolved.primary_file == primary
        assert found.name == wanted.name
    assert node.asked == [("model.safetensors", 0)]
    alone = replace(companion, allow=("*.txt",))
    assert "primary_file" not in str((await node.ensure(alone)).to_json())


async def test_what_is_there_is_not_fetched_again(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """M-5.3."""
    first = await node.ensure()
    inode = await node.inode()
    node.web.asked.clear()
    with caplog.at_level(logging.INFO):
        assert await node.ensure() == first
    assert caplog.text == ""
    assert node.web.asked == []
    assert await node.inode() == inode
    assert node.hub.asked[-2:] == ["owner/repo@main", f"owner/repo@{node.commit}/"]


async def test_a_pinned_version_that_is_there_needs_no_hub(node: Node) -> None:
    """M-5.3."""
    pinned = (await node.ensure()).spec
    node.hub.asked.clear()
    node.hub.offline = True
    assert (await node.ensure(pinned)).spec == pinned
    assert node.hub.asked == []


@pytest.mark.parametrize("key", ["", "f" * 64])
async def test_a_pinned_version_is_known_by_its_commit(node: Node, key: str) -> None:
    """M-5.3: whatever key stands beside it; and no other version stands in for it."""
    found = (await node.ensure()).spec.resolved
    assert found is not None
    node.hub.offline = True
    assert (await node.ensure(replace(SPEC, resolved=replace(found, cache_key=key)))).spec.resolved == found
    other = replace(SPEC, resolved=replace(found, revision="0" * 40, cache_key=key))
    assert isinstance(await node.failure(other), ArtifactUnavailable)


async def test_a_pinned_version_is_fetched_whatever_the_branch_says(node: Node) -> None:
    """M-5.2."""
    pinned = SPEC.found_at("https://huggingface.co", node.commit)
    node.hub.publish(REPOSITORY, {"other": b"x"})
    assert len((await node.ensure(pinned)).files) == 3


@pytest.mark.parametrize("endpoint", ["https://mirror.example", ""])
async def test_a_version_of_another_hub_is_told(node: Node, endpoint: str) -> None:
    """M-5.2."""
    pinned = replace(SPEC, resolved=Resolved(endpoint=endpoint, revision=node.commit))
    error = await node.failure(pinned)
    assert isinstance(error, InvalidSnapshotSpec)
    assert "this node asks 'https://huggingface.co' (HF_ENDPOINT)" in str(error)


@pytest.mark.parametrize(
    "endpoint", ["https://me:secret@mirror.example", "ftp://h", "https://h/?x", "https://h/#x", "https://"]
)
async def test_a_hub_with_a_password_in_its_url_is_told(node: Node, endpoint: str) -> None:
    """M-5.3: the url becomes part of the manifest and of the model's configuration."""
    node.hub.endpoint = endpoint
    error = await node.failure()
    assert "HF_ENDPOINT" in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize("damage", ["missing", "shorter", "manifest"])
async def test_a_damaged_snapshot_is_mended(node: Node, damage: str) -> None:
    """M-5.3: what is right of it is used."""
    await node.ensure()
    node.web.asked.clear()
    top = MODELS / f".artifacts/huggingface/{node.key}"
    if damage == "missing":
        await node.filesystem.remove_tree(top / "snapshot/config.json")
    elif damage == "shorter":
        node.filesystem.put(top / "snapshot/config.json", b"{")
    else:
        node.filesystem.put(top / "manifest.json", b"{")
    await node.ensure()
    assert {path: node.content(path) for path in FILES} == FILES
    assert len(node.asked) == (3 if damage == "manifest" else 1)


async def test_what_other_versions_have_is_shared(node: Node) -> None:
    """M-5.3: only what changed is downloaded."""
    await node.ensure()
    node.web.asked.clear()
    changed = {**FILES, "config.json": b'{"layers": 3}', "new/name.safetensors": WEIGHTS}
    node.commit = node.hub.publish(REPOSITORY, changed, large=(*LARGE, "new/name.safetensors"))
    newer = key_of(SPEC, node.commit)
    await node.ensure()
    assert node.asked == [("config.json", 0)]
    assert {path: node.content(path, newer) for path in changed} == changed
    assert node.content("config.json") == FILES["config.json"]


async def test_a_file_of_another_version_that_was_changed_is_not_shared(node: Node) -> None:
    await node.ensure()
    path = MODELS / f".artifacts/huggingface/{node.key}/snapshot/model.safetensors"
    node.filesystem.put(path, b"x" * len(WEIGHTS))
    node.commit = node.hub.publish(REPOSITORY, {**FILES, "more": b"1"}, large=LARGE)
    await node.ensure()
    assert node.content("model.safetensors", key_of(SPEC, node.commit)) == WEIGHTS


async def test_a_broken_transfer_goes_on_at_its_byte(node: Node) -> None:
    """M-5.2, M-5.3: also after a restart, which keeps the worker's name; what was whole stays."""
    node.web.breaks[node.url("model.safetensors")] = 20_000
    assert isinstance(await node.failure(), ArtifactUnavailable)
    assert not any(name.startswith(".artifacts/huggingface") for name in node.files)
    node.web.asked.clear()
    await node.ensure()
    assert [each for each in node.asked if each[0] == "model.safetensors"] == [("model.safetensors", 20_000)]
    assert {path: node.content(path) for path in FILES} == FILES
    assert not any(".partial" in name for name in node.files)


async def test_a_stop_leaves_what_came(node: Node) -> None:
    """M-5.3."""
    node.web.breaks[node.url("model.safetensors")] = 20_000
    service = node.service()
    service.builder.download.attempts = 3
    with anyio.move_on_after(1):
        await service.ensure(SPEC)
    node.web.asked.clear()
    await node.ensure()
    assert ("model.safetensors", 20_000) in node.asked
    lock = await node.locks.take(RootedPath(MODELS, lock_path(node.key)))
    assert lock is not None


async def abandoned(node: Node, writer: str = THEIRS) -> None:
    """A tree of `writer` that holds all but the end of one file."""
    node.web.breaks[node.url("model.safetensors")] = 20_000
    assert isinstance(await node.failure(service=node.service(writer)), ArtifactUnavailable)
    node.web.asked.clear()


async def test_an_abandoned_tree_is_taken_over_after_five_minutes(node: Node) -> None:
    """M-5.3."""
    await abandoned(node)
    await anyio.sleep(301)
    await node.ensure()
    assert node.asked == [("model.safetensors", 20_000)]
    assert not any(THEIRS in name for name in node.files)


async def test_a_tree_in_which_somebody_may_work_is_left_alone(node: Node) -> None:
    """M-5.3."""
    await abandoned(node)
    await anyio.sleep(299)
    await node.ensure()
    assert len(node.asked) == 3
    assert any(THEIRS in name for name in node.files)


async def test_what_nobody_comes_back_for_goes_after_a_day(node: Node) -> None:
    """M-5.3: directories of other names stay."""
    await abandoned(node)
    node.filesystem.put(MODELS / ".artifacts/.partial/somebody's/notes", b"1")
    service = node.service()
    await anyio.sleep(24 * 3600 - 10)
    await service.trees.sweep()
    assert any(THEIRS in name for name in node.files)
    await anyio.sleep(20)
    await service.trees.sweep()
    assert not any(THEIRS in name for name in node.files)
    assert ".artifacts/.partial/somebody's/notes" in node.files


async def test_our_own_tree_stays_until_it_was_not_needed_for_a_week(node: Node) -> None:
    """M-5.3: its branch may have moved on."""
    await abandoned(node, OURS)
    trees = node.service().trees
    await anyio.sleep(7 * 24 * 3600 - 10)
    await trees.sweep(ours=True)
    assert any(OURS in name for name in node.files)
    await anyio.sleep(20)
    await trees.sweep()  # what is needed is known afterwards
    assert any(OURS in name for name in node.files)
    await trees.sweep(ours=True)
    assert not any(OURS in name for name in node.files)


@pytest.mark.parametrize("right", ["config.json", "model.safetensors"])
async def test_what_others_left_in_a_tree_is_no_part_of_the_snapshot(node: Node, right: str) -> None:
    """M-5.3: upstream keeps parts of files in `.downloads`."""
    tree = MODELS / tree_path(node.key, THEIRS)
    for name in (".downloads/0123.partial", "snapshot/stray", "notes", "snapshot/tokenizer/vocab.txt/x"):
        node.filesystem.put(tree / name, b"1")
    for name in FILES:
        if name != "tokenizer/vocab.txt":
            wrong = b"x" * len(FILES[name])  # its size, not its hash
            node.filesystem.put(tree / "snapshot" / name, FILES[name] if right == name else wrong)
    await anyio.sleep(301)
    await node.ensure()
    assert {path for path, _ in node.asked} == set(FILES) - {right}
    top = f".artifacts/huggingface/{node.key}/"
    assert await node.filesystem.stat(MODELS / top / ".downloads") is None
    assert [name.removeprefix(top) for name in node.files if name.startswith(top)] == [
        "manifest.json",
        *(f"snapshot/{path}" for path in sorted(FILES)),
    ]


async def test_two_workers_fetch_a_snapshot_once(node: Node) -> None:
    """M-5.3."""
    async with anyio.create_task_group() as tasks:
        for writer in (OURS, THEIRS):
            tasks.start_soon(node.service(writer).ensure, SPEC)
    assert len(node.asked) == 3
    assert not any(".partial" in name for name in node.files)


async def test_waiting_for_another_worker_has_an_end(node: Node) -> None:
    """M-5.3: half an hour."""
    place = RootedPath(MODELS, lock_path(node.key))
    lock = await node.locks.take(place)
    assert lock is not None
    started_s = anyio.current_time()
    error = await node.failure()
    assert isinstance(error, SnapshotInWork)
    assert str(place.path) in str(error)
    assert 1800 <= anyio.current_time() - started_s < 1810
    await lock.release()
    await node.ensure()


async def test_a_snapshot_that_appears_in_spite_of_the_lock_is_taken(node: Node) -> None:
    """M-5.3: on file systems whose locks do not hold, two workers may build the same one."""
    service, other = node.service(OURS), node.service(THEIRS)
    build = service.builder.build

    async def slow(*arguments: object) -> Manifest:
        manifest = await build(*arguments)  # type: ignore[arg-type]
        node.filesystem.disk.locked.clear()
        await other.ensure(SPEC)
        inodes.append(await node.inode())
        return manifest

    inodes: list[int] = []
    service.builder.build = slow  # type: ignore[method-assign,assignment]
    await service.ensure(SPEC)
    assert await node.inode() == inodes[0] != 0
    assert node.content("config.json") == FILES["config.json"]
    assert not any(".partial" in name for name in node.files)


async def test_without_the_hub_the_newest_snapshot_of_an_earlier_time_does(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """M-5.1: upstream leaves the weights to the backend then."""
    await node.ensure()
    node.commit = node.hub.publish(REPOSITORY, {**FILES, "more": b"1"}, large=LARGE)
    await anyio.sleep(1)
    newer = (await node.ensure()).spec
    node.hub.offline = True
    assert (await node.ensure()).spec == newer
    assert "the snapshot of an earlier time is used" in caplog.text
    others = [replace(SPEC, allow=("*.json",)), replace(SPEC, revision="v2"), SnapshotSpec(repository="o/r")]
    for other in others:
        assert isinstance(await node.failure(other), ArtifactUnavailable)
    node.hub.endpoint = "https://mirror.example"
    assert isinstance(await node.failure(), ArtifactUnavailable)


async def test_a_definite_no_is_not_made_up_for(node: Node) -> None:
    await node.ensure()
    node.hub.closed[REPOSITORY] = "hf_secret"
    assert isinstance(await node.failure(), DownloadRefused)


async def test_a_hub_that_is_away_for_a_moment_is_asked_again(node: Node) -> None:
    node.hub.offline = True

    async def come_back() -> None:
        await anyio.sleep(3)
        node.hub.offline = False

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(come_back)
        await node.ensure()
    assert node.hub.asked.count("owner/repo@main") == 3


async def test_a_hub_that_does_not_come_to_an_end_is_given_up(node: Node) -> None:
    async def endless(*_: object, **__: object) -> str:
        await anyio.sleep_forever()
        raise AssertionError

    node.hub.commit = endless  # type: ignore[method-assign]
    assert "did not list its files within 600 s" in str(await node.failure())


async def test_a_closed_repository_opens_to_the_token_its_entry_names(node: Node) -> None:
    """M-5.2: a prefetching upstream worker has none."""
    node.hub.closed["owner/gated"] = "hf_secret"
    node.hub.publish("owner/gated", FILES)
    gated = SnapshotSpec(repository="owner/gated", token_variable="HF_TOKEN")
    manifest = await node.service(token="hf_secret").ensure(gated)
    assert len(manifest.files) == 3
    assert b"hf_secret" not in manifest.to_json()


@pytest.mark.parametrize(
    ("token", "variable", "why"),
    [
        ("", "HF_TOKEN", "it wants the token in HF_TOKEN, which is not set"),
        ("hf secret\n", "HF_TOKEN", "it wants the token in HF_TOKEN, which holds characters"),
        ("hf_wrong", "HF_TOKEN", "closed"),
        ("hf_secret", "", "closed"),  # nobody said that it may be shown
    ],
)
async def test_a_token_that_does_not_open_is_told(node: Node, token: str, variable: str, why: str) -> None:
    """M-5.2."""
    node.hub.closed["owner/gated"] = "hf_secret"
    node.hub.publish("owner/gated", FILES)
    gated = SnapshotSpec(repository="owner/gated", token_variable=variable)
    error = await node.failure(gated, node.service(token=token))
    assert isinstance(error, DownloadRefused)
    assert why in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(("token", "why"), [("", "set HF_TOKEN"), ("hf_wrong", "does the token in HF_TOKEN")])
async def test_a_gated_repository_that_tells_its_files_says_what_it_wants(
    node: Node, token: str, why: str
) -> None:
    """M-5.2."""
    node.web.closed[node.url("config.json")] = "hf_secret"
    spec = replace(SPEC, token_variable="HF_TOKEN" if token else "")
    error = await node.failure(spec, node.service(token=token))
    assert isinstance(error, DownloadRefused)
    assert why in str(error)


async def test_what_does_not_fit_is_refused_before_the_first_byte(node: Node) -> None:
    """M-5.2: with what must stay free counted in."""
    node.filesystem.capacity_bytes = len(WEIGHTS) + 10_000
    error = await node.failure(service=node.service(floor_bytes=20_000))
    assert isinstance(error, NoSpace)
    assert "20000 must stay free (LOCALAI_WORKER_DISK_FLOOR)" in str(error)
    assert node.web.asked == []
    await node.ensure()


async def test_what_is_there_of_a_snapshot_need_not_fit_again(node: Node) -> None:
    await abandoned(node, OURS)
    node.filesystem.capacity_bytes = node.filesystem.disk.used_bytes + len(WEIGHTS) - 20_000 + 2_000
    await node.ensure()


@pytest.mark.parametrize(("path", "why"), [("model.safetensors", "SHA-256"), ("config.json", "Git's hash")])
async def test_content_that_is_not_what_the_hub_says_is_refused(node: Node, path: str, why: str) -> None:
    """M-5.2."""
    node.web.files[node.url(path)] = b"x" * len(FILES[path])
    error = await node.failure()
    assert isinstance(error, ArtifactInvalid)
    assert why in str(error)
    assert not any(name.startswith(".artifacts/huggingface") for name in node.files)
    node.web.files[node.url(path)] = FILES[path]
    await node.ensure()
    assert node.content(path) == FILES[path]


@pytest.mark.parametrize("size_bytes", [5, 100_000])
async def test_content_of_another_size_is_refused(node: Node, size_bytes: int) -> None:
    """M-5.2: also where the server does not tell its size beforehand."""
    node.web.files[node.url("config.json")] = b"x" * size_bytes
    for node.web.tells_size in (True, False):
        assert isinstance(await node.failure(), ArtifactInvalid | ArtifactUnavailable)


async def test_files_come_side_by_side_but_not_all_at_once(node: Node) -> None:
    """M-5.2."""
    node.commit = node.hub.publish(REPOSITORY, {f"part-{number}": b"x" * 50_000 for number in range(20)})
    running, most = 0, 0
    really = node.web.open

    @asynccontextmanager
    async def counted(url: str, *, start: int = 0, token: str = "") -> AsyncIterator[Download]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            async with really(url, start=start, token=token) as download:
                yield download
        finally:
            running -= 1

    node.web.open = counted  # type: ignore[method-assign]
    assert len((await node.ensure()).files) == 20
    assert most == 4


async def test_names_that_are_one_on_this_disk_are_told(node: Node) -> None:
    """M-5.2: a file system that does not tell letter case apart keeps one of two files."""
    node.hub.publish(REPOSITORY, {"README.md": b"1", "readme.md": b"2"})
    really = node.filesystem.walk_files

    async def folded(place: RootedPath) -> tuple[PurePosixPath, ...] | None:
        names = await really(place)
        return names and tuple({str(name).lower(): name for name in names}.values())

    node.filesystem.walk_files = folded  # type: ignore[method-assign]
    error = await node.failure()
    assert "README.md" in str(error)
    assert "take names of other case for one" in str(error)


async def test_an_empty_file_is_one(node: Node) -> None:
    node.commit = node.hub.publish(REPOSITORY, {"__init__.py": b"", "empty.bin": b""}, large=["empty.bin"])
    await node.ensure()
    assert node.content("__init__.py", key_of(SPEC, node.commit)) == b""


@pytest.mark.parametrize("spec", [SnapshotSpec(repository="owner/other"), replace(SPEC, revision="v9")])
async def test_a_repository_that_is_not_there_is_told(node: Node, spec: SnapshotSpec) -> None:
    assert isinstance(await node.failure(spec), ArtifactMissing)


async def test_a_list_that_leads_out_writes_nothing(node: Node) -> None:
    """M-5.2."""
    node.hub.list_files(
        REPOSITORY, node.commit, (HubFile(path="../../../x", size_bytes=1, blob_id="a" * 40),)
    )
    assert isinstance(await node.failure(), ArtifactInvalid)
    assert node.files == []


@pytest.mark.parametrize("linked", [".artifacts", ".artifacts/huggingface", ".artifacts/.partial"])
async def test_a_link_that_leads_out_of_the_models_is_refused(node: Node, linked: str) -> None:
    await node.filesystem.make_directory(Path("/elsewhere"))
    node.filesystem.link(MODELS / linked, Path("/elsewhere"))
    assert isinstance(await node.failure(), PathEscapes)
    assert node.filesystem.files(Path("/elsewhere")) == []


def test_where_everything_lies() -> None:
    """M-5.3."""
    assert lock_path("k") == PurePosixPath(".artifacts/.locks/k.lock")
    assert tree_path("k", "w") == PurePosixPath(".artifacts/.partial/k.w")
