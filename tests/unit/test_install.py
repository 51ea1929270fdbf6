"""Installing backends, over a file system, galleries and payloads in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from localai_worker.adapters.galleries.yaml_text import parse_yaml
from localai_worker.adapters.memory.artifacts import InMemoryArtifacts, InMemoryAttachments
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.galleries import InMemoryGalleries
from localai_worker.adapters.memory.signatures import InMemorySignatures
from localai_worker.domain.backend_metadata import BackendMetadata
from localai_worker.domain.errors import (
    ArtifactUnavailable,
    FileUnreadable,
    FileUnwritable,
    GalleryUnreadable,
    NoSpace,
    UnsupportedSource,
    WorkerError,
)
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.gallery_index import GalleryIndexes
from localai_worker.domain.install import InstallBackends
from localai_worker.domain.install_errors import (
    DownloadFailed,
    InstallFailed,
    MissingAfterInstall,
    RunFileMissing,
)
from localai_worker.domain.installed import InstalledBackend, InstalledBackends
from localai_worker.domain.integrity import Integrity
from localai_worker.domain.ports.artifacts import ArtifactEstimate, FetchedArtifact
from localai_worker.domain.read_galleries import ReadGalleries

GOLDEN = Path(__file__).parents[1] / "golden/backends"
GOLDEN_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
BACKENDS = Path("/srv/backends")
SITE = Gallery("site", "https://example.invalid/index.yaml")
TREE = {"run.sh": b"#!/bin/sh\n", "demo-server": b"\x7fELF", "lib/a.so": b"1"}
CUDA = "quay.io/example/local-ai-backends:latest-gpu-nvidia-cuda-12-demo-engine"


@dataclass
class TickingClock:
    """Shows a second more each time it is read."""

    time: datetime = datetime(2026, 4, 20, 10, 15, 29, tzinfo=timezone(timedelta(hours=2)))

    def now(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


@dataclass
class Source:
    """Payloads in memory that remember who asked, and can be held up."""

    payloads: InMemoryArtifacts
    fetched: list[str] = field(default_factory=list)
    into: list[Path] = field(default_factory=list)
    gate: anyio.Event | None = None
    failure: WorkerError | None = None
    digest: str | None = None

    async def fetch(self, uri: str, into: Path, **options: Any) -> FetchedArtifact:
        self.fetched.append(uri)
        self.into.append(into)
        got = await self.payloads.fetch(uri, into, **options)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return got if self.digest is None else FetchedArtifact(self.digest, got.size_bytes)

    async def describe(self, uri: str) -> ArtifactEstimate:
        return await self.payloads.describe(uri)


class Node:
    """A node with nothing installed, a gallery called `site`, and whatever payloads a test offers."""

    def __init__(self, capability: str = "nvidia-cuda-12") -> None:
        self.filesystem = InMemoryFileSystem()
        self.source = Source(InMemoryArtifacts(self.filesystem))
        self.galleries = InMemoryGalleries({SITE.url: ()})
        self.installed = InstalledBackends(self.filesystem, BACKENDS, Path("/system"), capability)
        self.installer = InstallBackends(
            self.filesystem,
            self.installed,
            self.source,
            GalleryIndexes(ReadGalleries(self.galleries, self.filesystem, BACKENDS), capability),
            Integrity(InMemoryAttachments(), InMemorySignatures()),
            TickingClock(),
        )

    def offer(self, uri: str, tree: Mapping[str, bytes] = TREE) -> None:
        self.source.payloads.trees[uri] = tree

    def list_entries(self, *entries: Mapping[str, object]) -> None:
        self.galleries.indexes[SITE.url] = entries

    async def ensure(
        self,
        backend: str = "",
        galleries: Sequence[Gallery] = (SITE,),
        uri: str = "",
        name: str = "",
        alias: str = "",
        force: bool = False,
    ) -> InstalledBackend:
        return await self.installer.ensure(
            backend=backend, galleries=galleries, uri=uri, name=name, alias=alias, force=force
        )

    async def refusal(self, backend: str = "", **external: Any) -> str:
        with pytest.raises(InstallFailed) as caught:
            await self.ensure(backend, **external)
        assert caught.value.__cause__ is caught.value.cause
        return str(caught.value).removeprefix("installing backend from gallery: ")

    def files(self) -> dict[str, bytes]:
        found = {}
        for path in self.filesystem.files(BACKENDS):
            content = self.filesystem.get(path)
            assert content is not None
            found[str(path.relative_to(BACKENDS))] = content
        return found

    async def directories(self) -> list[str]:
        return [entry.name for entry in await self.filesystem.list_directory(BACKENDS)]

    def metadata(self, directory: str) -> BackendMetadata:
        return BackendMetadata.from_json(self.files()[f"{directory}/metadata.json"])

    def put(self, path: str, content: bytes) -> None:
        self.filesystem.put(BACKENDS / path, content)


@pytest.fixture
def node() -> Node:
    node = Node()
    entries = parse_yaml((GOLDEN / "gallery-index.yaml").read_bytes(), uri="u")
    assert isinstance(entries, list)
    node.list_entries(*entries)
    node.offer(CUDA)
    return node


CONCRETE = {"name": "cpu-t", "uri": "oci://r.invalid/t:1"}
META = {"name": "t", "capabilities": {"default": "cpu-t"}}


@pytest.fixture
def small() -> Node:
    node = Node("default")
    node.list_entries(META, CONCRETE)
    node.offer("oci://r.invalid/t:1")
    return node


async def test_a_meta_backend_is_installed_as_the_golden_disk_shows(node: Node) -> None:
    """G-2.2.2, G-2.2.3, G-2.2.5, G-2.2.7, G-2.2.8, G-2.2.9, G-2.2.10, G-2.2.11, G-2.2.12,
    G-2.2.13, G-2.2.14, G-2.2.15, G-2.2.16: golden dir-listing-meta-install.txt,
    metadata-concrete.json and metadata-meta.json, byte for byte.
    """
    node.source.digest = GOLDEN_DIGEST
    backend = await node.ensure("demo-engine")
    assert node.files() == {
        **{f"cuda12-demo-engine/{name}": content for name, content in TREE.items()},
        "cuda12-demo-engine/metadata.json": (GOLDEN / "metadata-concrete.json").read_bytes(),
        "demo-engine/metadata.json": (GOLDEN / "metadata-meta.json").read_bytes(),
    }
    assert backend.run_file == BACKENDS / "cuda12-demo-engine/run.sh"
    modes = [node.filesystem.mode_of(BACKENDS / name) for name in ("demo-engine", "cuda12-demo-engine")]
    assert modes == [0o750, 0o750]
    assert node.filesystem.mode_of(BACKENDS / "demo-engine/metadata.json") == 0o644


async def test_metadata_is_written_last_and_before_the_backend_is_seen(
    small: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G-2.2.7: a directory with metadata is whole; the image's own is replaced."""
    small.offer("oci://r.invalid/t:1", {**TREE, "metadata.json": b"the image's"})
    written: list[str] = []
    write, replace_directory = small.filesystem.write, small.filesystem.replace_directory

    async def note_write(path: Path, content: bytes, **options: Any) -> None:
        written.append(path.name)
        await write(path, content, **options)

    async def note_swap(private: Path, place: Path) -> None:
        written.append(f"swap {place.name}")
        await replace_directory(private, place)

    monkeypatch.setattr(small.filesystem, "write", note_write)
    monkeypatch.setattr(small.filesystem, "replace_directory", note_swap)
    await small.ensure("cpu-t")
    assert written[-2:] == ["metadata.json", "swap cpu-t"]
    assert set(written[:-2]) == {*(Path(name).name for name in TREE), "metadata.json"}
    assert small.metadata("cpu-t").name == "cpu-t"


async def test_what_is_installed_is_not_fetched_again(node: Node) -> None:
    """G-2.2.1, G-2.1.4."""
    first = await node.ensure("demo-engine")
    node.galleries.offline = node.source.payloads.offline = True
    assert await node.ensure("demo-engine") == first
    assert await node.ensure("site@Demo-Engine") == first
    assert (await node.ensure("cuda12-demo-engine")).run_file == first.run_file
    assert node.source.fetched == [CUDA]


async def test_a_missing_backends_directory_is_made(small: Node) -> None:
    """G-2.3.13, G-2.2.1, G-W7, N-B26: a gallery install works on a fresh disk."""
    assert await small.filesystem.stat(BACKENDS) is None
    await small.ensure("t")
    assert small.filesystem.mode_of(BACKENDS) == 0o750


async def test_a_name_with_a_dot_is_a_directory_like_any_other(small: Node) -> None:
    """G-2.5.3, G-F8: upstream's seed unpacks it over the backends directory."""
    small.list_entries({"name": "tool-1.5", "uri": "oci://r.invalid/t:1"})
    backend = await small.ensure("tool-1.5")
    assert backend.run_file == BACKENDS / "tool-1.5/run.sh"
    assert {name.split("/")[0] for name in small.files()} == {"tool-1.5"}


@pytest.mark.parametrize("name", ["site@cpu-t", "SITE@CPU-T", "Cpu-T"])
async def test_a_qualified_concrete_backend_is_found_after_its_install(small: Node, name: str) -> None:
    """G-2.2.2, G-2.2.4, G-W22, N-B5: upstream installs it and then does not find it."""
    backend = await small.ensure(name)
    assert (backend.name, backend.run_file) == ("cpu-t", BACKENDS / "cpu-t/run.sh")
    assert await small.directories() == ["cpu-t"]


async def test_a_qualified_meta_backend_gets_the_directory_of_its_plain_name(small: Node) -> None:
    """G-2.2.3, G-2.2.4, G-W22, N-B5: upstream makes a directory called `gallery@name`."""
    await small.ensure("site@t")
    assert await small.directories() == ["cpu-t", "t"]


async def test_a_concrete_backend_that_is_there_is_not_fetched_for_its_meta_backend(small: Node) -> None:
    """G-2.2.3, G-W20."""
    await small.ensure("cpu-t")
    backend = await small.ensure("t")
    assert small.source.fetched == ["oci://r.invalid/t:1"]
    assert (backend.is_meta, backend.run_file) == (True, BACKENDS / "cpu-t/run.sh")


@pytest.mark.parametrize(
    "spoilt",
    [
        {"cpu-t/run.sh": None},
        {"cpu-t/metadata.json": None},  # written last: without it the program may be half there
        {"cpu-t/metadata.json": b"{"},
        {"cpu-t/metadata.json": b'{"name":"another"}'},
        {"cpu-t/run.sh": None, "cpu-t/metadata.json": None},
    ],
)
async def test_a_concrete_backend_that_is_incomplete_is_fetched_anew(
    small: Node, spoilt: Mapping[str, bytes | None]
) -> None:
    """G-W20, G-F7: and nothing of the old one shines through."""
    await small.ensure("cpu-t")
    small.put("cpu-t/stale", b"1")
    for path, content in spoilt.items():
        if content is None:
            await small.filesystem.remove_tree(BACKENDS / path)
        else:
            small.put(path, content)
    await small.ensure("t")
    assert len(small.source.fetched) == 2
    assert "cpu-t/stale" not in small.files()
    assert small.metadata("cpu-t").name == "cpu-t"


async def test_a_meta_backend_whose_concrete_one_vanished_is_installed_anew(small: Node) -> None:
    await small.ensure("t")
    await small.filesystem.remove_tree(BACKENDS / "cpu-t")
    assert (await small.ensure("t")).is_runnable
    assert len(small.source.fetched) == 2


async def test_a_file_in_the_place_of_the_directory_is_replaced(small: Node) -> None:
    """G-F9."""
    small.put("cpu-t", b"stale")
    small.put("t/run.sh/oddity", b"stale")
    await small.ensure("t")
    assert set(small.files()) == {f"cpu-t/{name}" for name in (*TREE, "metadata.json")} | {"t/metadata.json"}


@dataclass
class Failing:
    """A way an install can go wrong, as a change to the node."""

    uri: str = "oci://r.invalid/t:1"

    def offline(self, node: Node) -> None:
        node.source.payloads.offline = True

    def broken(self, node: Node) -> None:
        node.source.payloads.broken.add(self.uri)

    def no_program(self, node: Node) -> None:
        node.offer(self.uri, {"readme": b"1"})

    def program_is_directory(self, node: Node) -> None:
        node.offer(self.uri, {"run.sh/x": b"1"})

    def metadata_is_directory(self, node: Node) -> None:
        node.offer(self.uri, {**TREE, "metadata.json/x": b"1"})

    def disk_full(self, node: Node) -> None:
        node.filesystem.capacity_bytes = 100
        node.offer(self.uri, {**TREE, "big": bytes(1000)})

    def disk_full_at_last(self, node: Node) -> None:
        node.source.failure = NoSpace(BACKENDS, "no space left on device")


WAYS = [way for way in vars(Failing) if not way.startswith("_") and callable(getattr(Failing, way))]


@pytest.mark.parametrize("way", WAYS)
async def test_a_failed_install_leaves_everything_as_it_was(small: Node, way: str) -> None:
    """G-2.3.8, G-2.3.10, G-2.3.12, G-F7: upstream overlays the old tree and deletes it on failure."""
    small.put("cpu-t/old-library", b"old")
    small.put("cpu-t/metadata.json", b"broken")
    before = small.files()
    getattr(Failing(), way)(small)
    with pytest.raises(InstallFailed):
        await small.ensure("t")
    assert small.files() == before
    assert await small.directories() == ["cpu-t"]
    assert len(small.installer.locks) == 0


async def test_the_wording_of_failures_is_the_one_frontends_know(small: Node) -> None:
    """G-2.3.12, G-2.1.6, G-1.4.4, G-2.2.6: nats.md 1.2: texts kept for parity."""
    assert await small.refusal("nothing") == 'no backend found with name "nothing"'
    assert await small.refusal("") == "backend name is empty"
    assert "unsafe backend name '../../x': it begins with a dot" in await small.refusal("../../x")
    small.offer(CONCRETE["uri"], {"readme": b"1"})
    missing = f'not a valid backend: run file not found "{BACKENDS}/cpu-t/run.sh" in {CONCRETE["uri"]}'
    assert await small.refusal("t") == missing
    small.source.payloads.offline = True
    failed = await small.refusal("t")
    assert failed.startswith('failed to download backend "oci://r.invalid/t:1": cannot fetch')


GOLDEN_MISSING = (
    "error installing backend https://example.invalid/t.tar.gz: "
    'no backend found with name "https://example.invalid/t.tar.gz"'
)


@pytest.mark.parametrize(
    ("external", "text"),
    [
        ({"uri": "oci://reg.invalid/b:1"}, "specifying a name is required for OCI images"),
        (
            {"uri": "https://example.invalid/t.tar.gz", "name": "t"},
            "specifying a name or alias is not supported for gallery backends",
        ),
        ({"uri": "https://example.invalid/t.tar.gz"}, GOLDEN_MISSING),
    ],
)
async def test_golden_refusals_of_installs_by_uri(small: Node, external: dict[str, Any], text: str) -> None:
    """G-2.4.2, G-2.4.4."""
    assert await small.refusal("b", **external) == text


async def test_a_failure_by_uri_names_the_uri(small: Node) -> None:
    """G-2.4.6."""
    text = await small.refusal("b", uri="ocifile:///images/b.tar")
    assert text.startswith(
        "error installing backend ocifile:///images/b.tar: "
        'failed to download backend "ocifile:///images/b.tar": no reader for source'
    )


async def test_an_install_by_uri_writes_the_golden_metadata(small: Node) -> None:
    """G-2.2.12, G-2.4.7."""
    uri = "oci://registry.example.invalid:5000/tools/plain:0.3.0"
    small.offer(uri)
    small.source.digest = ""
    small.installer.clock = TickingClock(datetime(2026, 4, 20, 10, 59, 59, tzinfo=timezone(timedelta())))
    backend = await small.ensure("my-tool", uri=uri, name="my-tool", alias="plain-tool")
    assert backend.run_file == BACKENDS / "my-tool/run.sh"
    golden = (GOLDEN / "metadata-external.json").read_bytes()
    assert small.files()["my-tool/metadata.json"] == golden
    assert (await small.ensure("plain-tool")).run_file == backend.run_file


@pytest.mark.parametrize(
    ("backend", "external"),
    [
        ("", {"uri": "ocifile:///images/my-tool.tar"}),
        ("", {"uri": "ocifile:///images/other.tar", "name": "my-tool"}),
        ("some-model", {"uri": "ocifile:///images/other.tar", "name": "my-tool"}),
        ("some-model", {"uri": "ocifile:///images/my-tool.tar"}),
    ],
)
async def test_an_install_by_uri_is_found_whatever_the_request_calls_it(
    small: Node, backend: str, external: dict[str, Any]
) -> None:
    """G-2.4.8, N-B6: upstream installs it, then looks for the request's `backend` and fails."""
    small.offer(external["uri"])
    for _ in range(2):
        assert (await small.ensure(backend, (), **external)).name == "my-tool"
    assert small.source.fetched == [external["uri"]]


async def test_a_name_given_with_a_uri_goes_before_the_requests_backend(small: Node) -> None:
    """N-B6: also when that backend happens to be installed."""
    small.offer("oci://r.invalid/new:1")
    await small.ensure("cpu-t")
    backend = await small.ensure("cpu-t", uri="oci://r.invalid/new:1", name="new")
    assert backend.run_file == BACKENDS / "new/run.sh"


async def test_a_local_directory_is_installed_under_its_own_name(small: Node) -> None:
    """G-2.4.1."""
    small.filesystem.put(Path("/srv/trees/my-tool/run.sh"), b"#!/bin/sh\n")
    small.offer("/srv/trees/my-tool")
    assert (await small.ensure("", uri="/srv/trees/my-tool")).name == "my-tool"
    assert small.metadata("my-tool").uri == "/srv/trees/my-tool"


async def test_a_uri_that_is_neither_image_nor_directory_names_a_gallery_entry(small: Node) -> None:
    """G-2.4.4, G-2.4.5: forced only where the request says so."""
    for force in (False, False, True):
        assert (await small.ensure("b", uri="site@cpu-t", force=force)).name == "cpu-t"
    assert small.source.fetched == ["oci://r.invalid/t:1"] * 2
    assert small.metadata("cpu-t").gallery_url == SITE.url


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "/abs"])
async def test_an_unsafe_name_installs_nothing(small: Node, name: str) -> None:
    """G-2.8.1, G-W5, N-B7."""
    small.offer("oci://r.invalid/b:1")
    assert "unsafe backend name" in await small.refusal("b", uri="oci://r.invalid/b:1", name=name)
    assert small.source.fetched == []


async def test_an_entry_with_an_unsafe_name_installs_nothing(small: Node) -> None:
    """G-W5, N-B7: galleries are input too."""
    small.list_entries({"name": "..", "uri": "oci://r.invalid/t:1"})
    assert "unsafe backend name" in await small.refusal("..")
    assert small.source.fetched == []


async def test_mirrors_are_tried_in_order_and_the_primary_uri_is_recorded(small: Node) -> None:
    """G-2.3.2, G-2.2.15."""
    small.list_entries({**CONCRETE, "mirrors": ["oci://mirror.invalid/t:1", "oci://r.invalid/t:2"]})
    small.source.payloads.trees = {"oci://r.invalid/t:2": TREE}
    await small.ensure("cpu-t")
    assert small.source.fetched == ["oci://r.invalid/t:1", "oci://mirror.invalid/t:1", "oci://r.invalid/t:2"]
    metadata = small.metadata("cpu-t")
    assert metadata.uri == "oci://r.invalid/t:1"
    assert metadata.digest.startswith("sha256:")
    assert len(set(small.source.into)) == 3


async def test_nothing_of_a_broken_source_is_left_by_the_next(small: Node) -> None:
    """G-2.3.7."""
    small.list_entries({**CONCRETE, "mirrors": ["oci://r.invalid/t:2"]})
    small.offer("oci://r.invalid/t:1", {"a": b"rubbish", "b": b"", "c": b""})
    small.source.payloads.broken.add("oci://r.invalid/t:1")
    small.offer("oci://r.invalid/t:2")
    await small.ensure("cpu-t")
    assert set(small.files()) == {f"cpu-t/{name}" for name in (*TREE, "metadata.json")}


async def test_when_all_sources_fail_the_first_says_why(small: Node) -> None:
    """G-2.3.8."""
    small.list_entries({**CONCRETE, "uri": "gopher://t", "mirrors": ["oci://r.invalid/gone"]})
    with pytest.raises(InstallFailed) as caught:
        await small.ensure("cpu-t")
    failed = caught.value.cause
    assert isinstance(failed, DownloadFailed)
    assert (failed.uri, type(failed.cause)) == ("gopher://t", UnsupportedSource)
    assert len(small.source.fetched) == 2


async def test_a_full_disk_does_not_send_us_to_the_mirrors(small: Node) -> None:
    small.list_entries({**CONCRETE, "mirrors": ["oci://r.invalid/t:1"]})
    small.source.failure = NoSpace(BACKENDS, "no space left on device")
    assert "no space left" in await small.refusal("cpu-t")
    assert len(small.source.fetched) == 1


async def test_a_program_that_is_a_link_out_of_the_payload_is_refused(small: Node) -> None:
    """G-2.2.6, G-W29, G-W6: what is installed is what runs."""

    class Linked(InMemoryArtifacts):
        async def fetch(self, uri: str, into: Path, **options: Any) -> FetchedArtifact:
            small.filesystem.put(Path("/bin/evil"), b"")
            small.filesystem.link(into / "run.sh", Path("/bin/evil"))
            return FetchedArtifact()

    small.source.payloads = Linked(small.filesystem)
    assert "outside allowed directory" in await small.refusal("cpu-t")
    assert await small.directories() == []


async def test_equal_requests_at_once_are_one_install(small: Node) -> None:
    """G-W17, N-B12: meta, concrete, qualified and other spellings share the lock of one directory."""
    small.source.gate = anyio.Event()
    found: list[InstalledBackend] = []

    async def ask(name: str) -> None:
        found.append(await small.ensure(name))

    async with anyio.create_task_group() as tasks:
        for name in ("t", "cpu-t", "site@t", "CPU-T", "t", "site@cpu-t"):
            tasks.start_soon(ask, name)
        await anyio.wait_all_tasks_blocked()
        small.source.gate.set()
    assert small.source.fetched == ["oci://r.invalid/t:1"]
    assert {backend.run_file for backend in found} == {BACKENDS / "cpu-t/run.sh"}
    assert await small.directories() == ["cpu-t", "t"]
    assert len(small.installer.locks) == 0


async def test_an_external_install_waits_for_a_gallery_install_of_the_same_directory(small: Node) -> None:
    """N-B12: the lock is the directory's, not the request's."""
    small.source.gate = anyio.Event()
    small.offer("oci://r.invalid/other:1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(small.ensure, "t")
        await anyio.wait_all_tasks_blocked()

        async def install_by_uri() -> None:
            await small.ensure("cpu-t", uri="oci://r.invalid/other:1", name="cpu-t")

        tasks.start_soon(install_by_uri)
        await anyio.wait_all_tasks_blocked()
        small.source.gate.set()
    assert small.source.fetched == ["oci://r.invalid/t:1"]


async def test_installs_of_different_backends_do_not_wait_for_each_other(small: Node) -> None:
    """G-F3: one long download does not hold up the node."""
    small.list_entries(META, CONCRETE, {"name": "other", "uri": "oci://r.invalid/other:1"})
    held = small.source.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(small.ensure, "t")
        await anyio.wait_all_tasks_blocked()
        small.source.gate = None
        small.offer("oci://r.invalid/other:1")
        assert (await small.ensure("other")).name == "other"
        held.set()
    assert (await small.ensure("t")).name == "t"


async def test_metas_that_point_to_each_others_names_do_not_lock_each_other_out(small: Node) -> None:
    other = Gallery("other", "https://other.invalid/index.yaml")
    small.list_entries(
        {"name": "a", "capabilities": {"default": "b"}}, {"name": "b", "uri": "oci://r.invalid/t:1"}
    )
    small.galleries.indexes[other.url] = (
        {"name": "b", "capabilities": {"default": "a"}},
        {"name": "a", "uri": "oci://r.invalid/t:1"},
    )
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(small.ensure, "a", (SITE,))
            tasks.start_soon(small.ensure, "b", (other,))
    assert (await small.ensure("a")).is_runnable
    assert (await small.ensure("b")).is_runnable


async def test_a_second_request_tries_itself_when_the_first_fails(small: Node) -> None:
    small.source.gate = anyio.Event()
    small.source.failure = ArtifactUnavailable("oci://r.invalid/t:1", "connection reset")
    outcomes: list[str] = []

    async def ask() -> None:
        try:
            outcomes.append((await small.ensure("t")).name)
        except InstallFailed as error:
            outcomes.append(type(error.cause).__name__)
            small.source.failure = None

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        small.source.gate.set()
    assert outcomes == ["DownloadFailed", "t"]


async def test_a_cancelled_install_leaves_everything_as_it_was(small: Node) -> None:
    """G-2.3.9."""
    small.put("cpu-t/old", b"old")
    small.source.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(small.ensure, "t")
        await anyio.wait_all_tasks_blocked()
        assert len(await small.directories()) == 2
        tasks.cancel_scope.cancel()
    assert small.files() == {"cpu-t/old": b"old"}
    assert await small.directories() == ["cpu-t"]
    assert len(small.installer.locks) == 0


async def test_what_cannot_be_cleaned_up_does_not_hide_the_failure(
    small: Node, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(InMemoryFileSystem):
        async def remove_tree(self, path: Path) -> None:
            raise FileUnwritable(path, "device or resource busy")

    stuck = Stuck()
    small.installer.filesystem = stuck
    small.source.payloads.offline = True
    with pytest.raises(InstallFailed, match="offline"):
        await small.ensure("t")
    assert "left behind" in caplog.text


async def test_an_unreadable_gallery_is_named(small: Node) -> None:
    small.galleries.offline = True
    with pytest.raises(InstallFailed) as caught:
        await small.ensure("t")
    assert isinstance(caught.value.cause, GalleryUnreadable)


async def test_no_galleries_at_all_leave_nothing_to_find(small: Node) -> None:
    with pytest.raises(InstallFailed, match='no backend found with name "t"'):
        await small.ensure("t", ())


async def test_a_backends_directory_that_cannot_be_read_is_told_before_anything_is_fetched(
    small: Node,
) -> None:
    small.filesystem.put(BACKENDS, b"a file")
    with pytest.raises(FileUnreadable):
        await small.ensure("t")
    assert small.source.fetched == []


async def test_what_disappears_right_after_its_install_is_missing(small: Node) -> None:
    class Vanishing(InMemoryFileSystem):
        async def replace_directory(self, new: Path, target: Path) -> None:
            await super().remove_tree(new)

    small.filesystem = Vanishing()
    small.installer.filesystem = small.installed.filesystem = small.filesystem
    small.source.payloads.filesystem = small.filesystem
    with pytest.raises(MissingAfterInstall) as caught:
        await small.ensure("cpu-t")
    assert str(caught.value) == 'backend "cpu-t" not found after install attempt'


def test_paths_in_errors_are_quoted_as_go_quotes_them() -> None:
    assert '"/b/a\\"b/run.sh"' in str(RunFileMissing(Path('/b/a"b/run.sh'), "oci://x"))


async def test_a_tag_that_is_missing_is_made_up_for_by_the_master_build(small: Node) -> None:
    """G-W2: and what is recorded is the digest of what was unpacked."""
    small.list_entries({"name": "cpu-t", "uri": "oci://r.invalid/t:latest-x"})
    small.offer("oci://r.invalid/t:master-x")
    await small.ensure("cpu-t")
    described = await small.source.describe("oci://r.invalid/t:master-x")
    assert small.source.fetched == ["oci://r.invalid/t:latest-x", "oci://r.invalid/t:master-x"]
    assert small.metadata("cpu-t").digest == described.digest
    assert small.metadata("cpu-t").uri == "oci://r.invalid/t:latest-x"


async def test_an_outage_installs_no_other_build(small: Node) -> None:
    """G-W2."""
    small.list_entries({"name": "cpu-t", "uri": "oci://r.invalid/t:latest-x"})
    small.offer("oci://r.invalid/t:latest-x")
    small.offer("oci://r.invalid/t:master-x")
    small.source.failure = ArtifactUnavailable("oci://r.invalid/t:latest-x", "connection refused")
    assert "connection refused" in await small.refusal("cpu-t")
    assert small.source.fetched == ["oci://r.invalid/t:latest-x"]


@pytest.mark.parametrize("older_is_forced", [False, True])
async def test_a_newer_forced_request_takes_a_fetch_over(small: Node, older_is_forced: bool) -> None:
    """G-W19: an upgrade does not wait for the download it replaces, and nobody gets an error for it."""
    outcomes: list[str] = []
    small.source.gate = anyio.Event()

    async def ask(who: str, *, force: bool) -> None:
        await small.installer.ensure(backend="cpu-t", galleries=(SITE,), force=force)
        outcomes.append(who)

    async with anyio.create_task_group() as asking:
        asking.start_soon(partial(ask, "older", force=older_is_forced))
        await anyio.wait_all_tasks_blocked()
        assert len(small.source.fetched) == 1
        small.source.gate = None  # the newer one is not held up
        asking.start_soon(partial(ask, "newer", force=True))
    assert sorted(outcomes) == ["newer", "older"]
    assert len(small.source.fetched) == (3 if older_is_forced else 2)
    assert await small.directories() == ["cpu-t"]


async def test_a_newer_request_that_is_not_forced_waits_and_fetches_nothing(small: Node) -> None:
    small.source.gate = anyio.Event()
    async with anyio.create_task_group() as asking:
        asking.start_soon(small.ensure, "cpu-t")
        await anyio.wait_all_tasks_blocked()
        asking.start_soon(small.ensure, "cpu-t")
        await anyio.wait_all_tasks_blocked()
        small.source.gate.set()
    assert len(small.source.fetched) == 1


async def test_a_newer_request_for_another_directory_takes_nothing_over(small: Node) -> None:
    small.list_entries(CONCRETE, {"name": "other", "uri": "oci://r.invalid/other:1"})
    small.offer("oci://r.invalid/other:1")
    gate = small.source.gate = anyio.Event()
    async with anyio.create_task_group() as asking:
        asking.start_soon(small.ensure, "cpu-t")
        await anyio.wait_all_tasks_blocked()
        small.source.gate = None
        await small.installer.ensure(backend="other", galleries=(SITE,), force=True)
        gate.set()
    assert sorted(small.source.fetched) == ["oci://r.invalid/other:1", "oci://r.invalid/t:1"]
