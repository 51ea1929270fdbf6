"""Every `ArtifactSource` keeps these promises: the in-memory ones and the real."""

import gzip
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pytest

from localai_worker.adapters.artifacts.file_payloads import FilePayloads
from localai_worker.adapters.artifacts.local_directory import LocalDirectories
from localai_worker.adapters.artifacts.ocifile import ImageFiles
from localai_worker.adapters.artifacts.readers import ArtifactReaders
from localai_worker.adapters.artifacts.url_payloads import UrlPayloads
from localai_worker.adapters.artifacts.web.client import WebClient
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.memory.artifacts import InMemoryArtifacts
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain.errors import (
    ArtifactInvalid,
    ArtifactMissing,
    ArtifactUnavailable,
    NoSpace,
    UnsupportedSource,
    WorkerError,
)
from localai_worker.domain.ports.artifacts import (
    ArtifactSource,
    FetchPhase,
    FetchProgress,
)
from localai_worker.domain.ports.filesystem import FileSystem, RootedPath
from tests import archives
from tests.docker_registry import docker_registry
from tests.registry import (
    Image,
    OwnRegistry,
    Registry,
    blob_fetcher,
    own_registry,
    registry_images,
)

TREE = {"run.sh": b"#!/bin/sh\nexit 0\n", "lib/libfoo.so": b"\x7fELF" * 1000, "lib/deep/er/x": b""}


class Refused(WorkerError):
    """What a policy says."""


@dataclass
class Stage:
    """A source, the file system it writes to, an empty directory there, and a way to offer a payload."""

    source: ArtifactSource
    filesystem: FileSystem
    into: Path
    offer: Callable[[Mapping[str, bytes]], str]
    spoil: Callable[[str], None]
    missing: str
    digest_known: bool
    is_image: bool = True
    is_hashed: bool = False  # compared with the SHA-256 it should have
    unread: tuple[str, ...] = ("quay.io/example/b:1", "gopher://h/x", "relative/tree", "")

    async def files(self) -> dict[str, bytes]:
        names = await self.filesystem.walk_files(RootedPath(self.into, PurePosixPath()))
        assert names is not None
        return {
            str(name): await self.filesystem.read(self.into / name, limit_bytes=1 << 20) for name in names
        }


def memory_stage(top: Path) -> Stage:
    filesystem = InMemoryFileSystem()
    filesystem.put(top / "into" / ".keep", b"")
    source = InMemoryArtifacts(filesystem)

    def offer(tree: Mapping[str, bytes]) -> str:
        source.trees["ocifile:///backend.tar"] = tree
        return "ocifile:///backend.tar"

    return Stage(
        source,
        filesystem,
        top / "into",
        offer,
        source.broken.add,
        "ocifile:///elsewhere.tar",
        digest_known=True,
    )


def disk_stage(
    top: Path,
    offer: Callable[[Mapping[str, bytes]], str],
    spoil: Callable[[str], None],
    missing: str,
    *,
    digest_known: bool,
) -> Stage:
    (top / "into").mkdir()
    (top / "into" / ".keep").touch()
    source = ArtifactReaders({"ocifile://": ImageFiles, "/": LocalDirectories})
    return Stage(source, LocalFileSystem(), top / "into", offer, spoil, missing, digest_known)


def archive_stage(top: Path, write: Callable[..., Path], *, digest_known: bool) -> Stage:
    archive = top / "backend.tar"

    def offer(tree: Mapping[str, bytes]) -> str:
        return f"ocifile://{write(archive, archives.tree_tar(tree))}"

    def spoil(_: str) -> None:
        content = bytearray(archive.read_bytes())
        at = content.index(b"ELF") if b"ELF" in content else content.index(b"\x1f\x8b") + 100
        content[at] ^= 0xFF
        archive.write_bytes(content)

    missing = f"ocifile://{top}/elsewhere.tar"
    return disk_stage(top, offer, spoil, missing, digest_known=digest_known)


def directory_stage(top: Path) -> Stage:
    def offer(tree: Mapping[str, bytes]) -> str:
        for name, content in tree.items():
            (top / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (top / "tree" / name).write_bytes(content)
        return str(top / "tree")

    def spoil(uri: str) -> None:
        os.mkfifo(Path(uri) / "a-pipe")

    stage = disk_stage(top, offer, spoil, str(top / "elsewhere"), digest_known=False)
    return replace(stage, is_image=False)


def registry_stage(top: Path, registry: Registry) -> Stage:
    images = registry_images(top)
    spoiled: list[str] = []

    def offer(tree: Mapping[str, bytes]) -> str:
        return registry.push(Image([gzip.compress(archives.tree_tar(tree), mtime=0)]), "offered")

    def spoil(uri: str) -> None:
        spoiled.append(registry.push(Image([b"no tar at all" * 100]), "offered"))
        assert spoiled == [uri]

    stage = disk_stage(top, offer, spoil, registry.uri("nothing"), digest_known=True)
    stage.source = ArtifactReaders({}, lambda: images)
    return replace(stage, unread=("gopher://h/x", "relative/tree", "", "https://h/x.tar"))


def url_stage(top: Path, server: OwnRegistry, **options: bool) -> Stage:
    for name, value in options.items():
        setattr(server, name, value)
    payloads = UrlPayloads(WebClient(), blob_fetcher(top))
    uri = f"http://{server.host}/backend.tar.gz"

    def offer(tree: Mapping[str, bytes]) -> str:
        server.files["/backend.tar.gz"] = gzip.compress(archives.tree_tar(tree), mtime=0)
        return uri

    def spoil(_: str) -> None:
        server.files["/backend.tar.gz"] = b"no tar at all" * 100

    missing = f"http://{server.host}/elsewhere.tar.gz"
    stage = disk_stage(top, offer, spoil, missing, digest_known=True)
    stage.source = ArtifactReaders({"http://": lambda: payloads})
    return replace(stage, is_image=False, is_hashed=True)


def file_stage(top: Path) -> Stage:
    archive = top / "backend.tar"

    def offer(tree: Mapping[str, bytes]) -> str:
        archive.write_bytes(archives.tree_tar(tree))
        return f"file://{archive}"

    def spoil(_: str) -> None:
        archive.write_bytes(b"no tar at all" * 100)

    stage = disk_stage(top, offer, spoil, f"file://{top}/elsewhere", digest_known=True)
    stage.source = ArtifactReaders({"file://": FilePayloads})
    return replace(stage, is_image=False, is_hashed=True)


STAGES = (
    "memory",
    "oci archive",
    "docker archive",
    "directory",
    "own registry",
    "docker-registry",
    "url",
    "url without version",
    "file",
)


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    match request.param:
        case "own registry":
            with own_registry() as own:
                yield registry_stage(tmp_path, own.pushed)
        case "url":
            with own_registry() as own:
                yield url_stage(tmp_path, own)
        case "url without version":
            with own_registry() as own:
                yield url_stage(tmp_path, own, knows_ranges=False, has_versions=False)
        case "file":
            yield file_stage(tmp_path)
        case "docker-registry":
            yield registry_stage(tmp_path, request.getfixturevalue("real_registry"))
        case kind:
            yield local_stage(tmp_path, kind)


@pytest.fixture(scope="module")
def real_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as real:
        yield real


def local_stage(tmp_path: Path, kind: str) -> Stage:
    match kind:
        case "memory":
            return memory_stage(tmp_path)
        case "oci archive":
            return archive_stage(tmp_path, archives.write_oci, digest_known=True)
        case "docker archive":
            return archive_stage(tmp_path, archives.write_docker, digest_known=False)
        case _:
            return directory_stage(tmp_path)


async def test_a_payload_is_unpacked_into_the_directory(stage: Stage) -> None:
    fetched = await stage.source.fetch(stage.offer(TREE), stage.into)
    assert await stage.files() == {**TREE, ".keep": b""}
    assert fetched.size_bytes == sum(map(len, TREE.values()))


async def test_an_image_has_the_digest_of_its_manifest_and_it_is_stable(stage: Stage) -> None:
    """G-W3: what is recorded was pulled, not asked for afterwards."""
    uri = stage.offer(TREE)
    first = await stage.source.fetch(uri, stage.into)
    again = await stage.source.fetch(uri, stage.into)
    assert first.digest == again.digest
    assert first.digest.startswith("sha256:") == stage.digest_known


async def test_progress_goes_one_way_and_ends_with_everything_done(stage: Stage) -> None:
    told: list[FetchProgress] = []
    uri = stage.offer({**TREE, "big": b"x" * 3_000_000})
    await stage.source.fetch(uri, stage.into, report=told.append)
    assert told[0] == FetchProgress(FetchPhase.RESOLVING, 0, 0)
    phases = [list(FetchPhase).index(each.phase) for each in told]
    assert phases == sorted(phases)
    done = [each.done_bytes for each in told]
    assert done == sorted(done)
    (total_bytes,) = {each.total_bytes for each in told} - {0}
    assert told[-1] == FetchProgress(FetchPhase.EXTRACTING, total_bytes, total_bytes)


async def test_what_is_approved_is_an_image_before_anything_is_written(stage: Stage) -> None:
    asked: list[tuple[str, list[str]]] = []

    async def approve(digest: str) -> None:
        asked.append((digest, sorted(await stage.files())))

    fetched = await stage.source.fetch(stage.offer(TREE), stage.into, approve=approve)
    assert asked == ([(fetched.digest, [".keep"])] if stage.is_image else [])


async def test_what_approval_raises_ends_the_fetch(stage: Stage) -> None:
    async def refuse(digest: str) -> None:
        raise Refused(digest)

    uri = stage.offer(TREE)
    if stage.is_image:
        with pytest.raises(Refused):
            await stage.source.fetch(uri, stage.into, approve=refuse)
        assert sorted(await stage.files()) == [".keep"]
    else:
        await stage.source.fetch(uri, stage.into, approve=refuse)


async def test_images_and_directories_are_not_compared_with_a_hash_and_all_else_is(stage: Stage) -> None:
    uri = stage.offer(TREE)
    if stage.is_hashed:
        with pytest.raises(ArtifactInvalid, match=f"should be sha256:{'0' * 64}"):
            await stage.source.fetch(uri, stage.into, sha256="0" * 64)
        digest = (await stage.source.fetch(uri, stage.into)).digest
        await stage.source.fetch(uri, stage.into, sha256=digest.removeprefix("sha256:").upper())
    else:
        await stage.source.fetch(uri, stage.into, sha256="0" * 64)
    assert (await stage.files())["run.sh"] == TREE["run.sh"]


async def test_an_archive_is_compared_with_its_hash_in_any_case(tmp_path: Path) -> None:
    stage = memory_stage(tmp_path)
    uri = stage.offer(TREE)
    assert isinstance(stage.source, InMemoryArtifacts)
    stage.source.archives.add(uri)
    right = (await stage.source.describe(uri)).digest.removeprefix("sha256:")
    assert (await stage.source.fetch(uri, stage.into, sha256=right.upper())).digest == f"sha256:{right}"
    with pytest.raises(ArtifactInvalid, match=f"should be sha256:{'0' * 64}"):
        await stage.source.fetch(uri, stage.into, sha256="0" * 64)


async def test_a_description_tells_the_digest_and_what_a_fetch_takes(stage: Stage) -> None:
    uri = stage.offer({**TREE, "big": os.urandom(200_000)})
    estimate = await stage.source.describe(uri)
    assert sorted(await stage.files()) == [".keep"]
    fetched = await stage.source.fetch(uri, stage.into)
    assert estimate.digest in {"", fetched.digest}
    assert estimate.download_bytes == fetched.downloaded_bytes
    assert estimate.disk_bytes >= fetched.size_bytes


async def test_what_cannot_be_fetched_cannot_be_described(stage: Stage) -> None:
    stage.offer(TREE)
    with pytest.raises(ArtifactMissing):
        await stage.source.describe(stage.missing)
    with pytest.raises(UnsupportedSource):
        await stage.source.describe("gopher://h/x")


async def test_a_payload_that_is_not_there_is_missing(stage: Stage) -> None:
    stage.offer(TREE)
    with pytest.raises(ArtifactMissing) as caught:
        await stage.source.fetch(stage.missing, stage.into)
    assert caught.value.uri == stage.missing


async def test_a_broken_payload_is_told_from_a_missing_one(stage: Stage) -> None:
    uri = stage.offer(TREE)
    stage.spoil(uri)
    with pytest.raises(ArtifactInvalid) as caught:
        await stage.source.fetch(uri, stage.into)
    assert caught.value.uri == uri


async def test_a_kind_of_source_nobody_reads_is_refused_by_name(stage: Stage) -> None:
    stage.offer(TREE)
    for uri in stage.unread:
        with pytest.raises(UnsupportedSource) as caught:
            await stage.source.fetch(uri, stage.into)
        assert caught.value.uri == uri
        assert caught.value.supported


async def test_a_payload_that_does_not_fit_says_so(tmp_path: Path) -> None:
    stage = memory_stage(tmp_path)
    uri = stage.offer(TREE)
    assert isinstance(stage.filesystem, InMemoryFileSystem)
    stage.filesystem.capacity_bytes = 100
    with pytest.raises(NoSpace):
        await stage.source.fetch(uri, stage.into)


async def test_the_in_memory_sources_can_be_taken_offline(tmp_path: Path) -> None:
    stage = memory_stage(tmp_path)
    uri = stage.offer(TREE)
    assert isinstance(stage.source, InMemoryArtifacts)
    stage.source.offline = True
    with pytest.raises(ArtifactUnavailable, match="offline"):
        await stage.source.fetch(uri, stage.into)
