"""Gallery entries and what a requested name means."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from localai_worker.adapters.galleries.yaml_text import parse_yaml
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.galleries import InMemoryGalleries
from localai_worker.domain.backend import UnsafeBackendName
from localai_worker.domain.errors import GalleryUnreadable, WorkerError
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.gallery_index import (
    EmptyBackendName,
    GalleryChoice,
    GalleryEntry,
    GalleryIndexes,
    InvalidGalleryEntry,
    NestedMetaBackend,
    NoBackendForHost,
    NoSuchBackend,
)
from localai_worker.domain.ports.galleries import GalleryDocument
from localai_worker.domain.read_galleries import ReadGalleries

GOLDEN = Path(__file__).parents[1] / "golden/backends/gallery-index.yaml"
DEMO = Gallery("localai", "file:///golden.yaml")
SITE = Gallery("site", "file:///site.yaml")


@dataclass
class Shelf:
    """Indexes by url, read for a host of `capability`; remembers which urls were asked for."""

    indexes: dict[str, list[Mapping[str, object]]] = field(default_factory=dict)
    capability: str = "nvidia-cuda-12"
    asked: list[str] = field(default_factory=list)

    async def fetch(self, url: str, *, trusted_root: Path, known: str = "") -> GalleryDocument | None:
        self.asked.append(url)
        return await InMemoryGalleries({**self.indexes}).fetch(url, trusted_root=trusted_root, known=known)

    async def parse(self, content: bytes, *, url: str) -> object:
        return await InMemoryGalleries().parse(content, url=url)

    async def write(self, document: object) -> bytes:
        return await InMemoryGalleries().write(document)

    async def choose(self, name: str, *galleries: Gallery) -> GalleryChoice:
        reader = ReadGalleries(self, InMemoryFileSystem(), Path("/backends"))
        return await GalleryIndexes(reader, self.capability).choose(name, galleries or (DEMO, SITE))

    async def names(self, name: str, *galleries: Gallery) -> tuple[str, str]:
        choice = await self.choose(name, *galleries)
        return choice.requested.name, choice.concrete.name


@pytest.fixture
def shelf() -> Shelf:
    golden = parse_yaml(GOLDEN.read_bytes(), uri="u")
    assert isinstance(golden, list)
    return Shelf({DEMO.url: golden, SITE.url: [{"name": "Tool", "uri": "/srv/tool"}]})


def entry(**fields: object) -> GalleryEntry:
    return GalleryEntry.from_mapping({"name": "x", **fields}, DEMO)


async def test_an_entry_is_read_with_the_url_of_its_gallery(shelf: Shelf) -> None:
    """G-1.2.1, G-1.2.2, G-1.2.3, G-1.2.4."""
    choice = await shelf.choose("cuda12-demo-engine")
    assert choice.requested is choice.concrete
    read = choice.concrete
    assert (read.alias, read.version, read.gallery.url) == ("demo-engine", "1.10", DEMO.url)
    assert read.sources == ("quay.io/example/local-ai-backends:latest-gpu-nvidia-cuda-12-demo-engine",)


def test_meta_is_an_entry_with_builds_and_no_payload() -> None:
    """G-1.2.13."""
    builds = {"default": "y"}
    assert entry(capabilities=builds).is_meta
    assert not entry(capabilities=builds, uri="/srv/x").is_meta  # concretes inherit the map by merge keys
    assert not entry(uri="/srv/x").is_meta
    assert not entry().is_meta


def test_mirrors_come_after_the_uri() -> None:
    """G-1.2.5."""
    assert entry(uri="a", mirrors=["b", "c"]).sources == ("a", "b", "c")


def test_what_only_people_or_models_need_makes_no_difference() -> None:
    """G-1.2.7, G-1.2.8, G-1.2.9, G-1.2.10, G-1.2.11: whatever is written there."""
    shown = {
        "description": "x",
        "license": "mit",
        "icon": "https://h/i",
        "size": "1GB",
        "urls": [],
        "tags": ["a"],
    }
    shared = {"url": "https://h/x", "files": [{"filename": "f"}], "backend": "b"}
    overwritten = {"gallery": {"url": "https://evil.example", "name": "evil"}, "installed": "true"}
    everything_odd = {key: ["odd"] for key in (*shown, *shared, *overwritten)}
    for odd in ({}, everything_odd):
        assert entry(uri="/srv/x", **{**shown, **shared, **overwritten, **odd}) == entry(uri="/srv/x")


def test_the_hash_of_a_payload_is_read() -> None:
    """G-1.2.12."""
    assert entry(uri="https://h/x.tar.gz", sha256="ab" * 32).sha256 == "ab" * 32


@pytest.mark.parametrize("key", ["mirrors", "capabilities", "alias", "uri"])
def test_a_key_without_a_value_is_as_if_absent(key: str) -> None:
    assert entry(**{key: ""}) == entry()


@pytest.mark.parametrize(
    "fields",
    [
        {"alias": ["a"]},
        {"uri": {"a": "b"}},
        {"version": 1.1},
        {"mirrors": "not-a-list"},
        {"mirrors": [["nested"]]},
        {"capabilities": ["default"]},
        {"capabilities": {"default": ["y"]}},
    ],
)
def test_a_field_of_the_wrong_type_is_told_with_the_entry(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidGalleryEntry, match='entry "x" of gallery "localai" is invalid'):
        entry(**fields)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "nul\0"])
def test_an_entry_whose_name_could_lead_out_is_refused(name: str) -> None:
    """G-W5, N-B7."""
    with pytest.raises(UnsafeBackendName):
        entry(name=name)


@pytest.mark.parametrize(
    ("capability", "build"),
    [
        ("nvidia-cuda-12", "cuda12-demo-engine"),
        ("nvidia", "cuda12-demo-engine"),
        ("default", "cpu-demo-engine"),
        ("unheard-of", "cpu-demo-engine"),
    ],
)
async def test_a_meta_backend_leads_to_the_build_for_the_host(
    shelf: Shelf, capability: str, build: str
) -> None:
    """G-1.2.6, G-1.4.6."""
    shelf.capability = capability
    assert await shelf.names("demo-engine") == ("demo-engine", build)


async def test_a_development_build_is_had_by_its_own_name_only(shelf: Shelf) -> None:
    """G-1.2.15, G-1.4.7, G-1.4.8."""
    assert await shelf.names("demo-engine-development") == (
        "demo-engine-development",
        "cuda12-demo-engine-development",
    )


@pytest.mark.parametrize("name", ["tool", "TOOL", "site@tool", "SITE@Tool"])
async def test_names_are_found_in_any_letter_case_qualified_or_not(shelf: Shelf, name: str) -> None:
    """G-1.4.1, G-1.4.3."""
    assert await shelf.names(name) == ("Tool", "Tool")


@pytest.mark.parametrize(
    "name", ["localai@tool", "site@", "@tool", "tool@site", "site@site@tool", "other@tool"]
)
async def test_a_qualified_name_means_that_gallery_alone(shelf: Shelf, name: str) -> None:
    """G-1.4.3."""
    with pytest.raises(NoSuchBackend) as caught:
        await shelf.choose(name)
    assert str(caught.value) == f'no backend found with name "{name}"'


async def test_a_slash_reads_as_two_underscores(shelf: Shelf) -> None:
    """G-1.4.1."""
    shelf.indexes[SITE.url] = [{"name": "org__tool", "uri": "/srv/x"}]
    assert await shelf.names("org/Tool") == ("org__tool", "org__tool")
    assert await shelf.names("site@org/tool") == ("org__tool", "org__tool")


async def test_aliases_are_no_names(shelf: Shelf) -> None:
    """G-1.4.2."""
    shelf.indexes[DEMO.url] = [{"name": "a-tool", "alias": "other", "uri": "/srv/x"}]
    with pytest.raises(NoSuchBackend):
        await shelf.choose("other")


async def test_the_first_entry_of_a_name_wins_by_gallery_then_file_order(shelf: Shelf) -> None:
    """G-1.4.2, G-1.2.16."""
    shelf.indexes = {
        DEMO.url: [{"name": "t", "uri": "/first"}, {"name": "T", "uri": "/second"}],
        SITE.url: [{"name": "t", "uri": "/third"}],
    }
    assert (await shelf.choose("t")).concrete.uri == "/first"
    assert (await shelf.choose("t", SITE, DEMO)).concrete.uri == "/third"
    assert (await shelf.choose("site@t")).concrete.uri == "/third"


async def test_entries_for_other_hardware_count_as_absent(shelf: Shelf) -> None:
    """G-1.4.5."""
    shelf.capability = "default"
    shelf.indexes[SITE.url] = [
        {"name": "cuda12-demo-engine", "uri": "quay.io/x:cuda12"},
        {"name": "picky", "capabilities": {"amd": "y"}},
        {"name": "both", "uri": "quay.io/x:rocm"},
        {"name": "both", "uri": "quay.io/x:cpu"},
    ]
    for name in ("cuda12-demo-engine", "picky"):
        with pytest.raises(NoSuchBackend):
            await shelf.choose(name)
    assert (await shelf.choose("both")).concrete.uri == "quay.io/x:cpu"


async def test_the_build_of_a_meta_backend_may_lie_in_any_gallery(shelf: Shelf) -> None:
    """G-1.4.6."""
    shelf.indexes = {
        DEMO.url: [{"name": "cpu-t", "uri": "/in-the-first"}],
        SITE.url: [{"name": "t", "capabilities": {"default": "CPU-T"}}, {"name": "cpu-t", "uri": "/own"}],
    }
    assert (await shelf.choose("site@t")).concrete.uri == "/in-the-first"


async def test_a_build_that_no_gallery_has_is_told_with_the_map(shelf: Shelf) -> None:
    """G-1.4.6, G-1.2.16."""
    shelf.indexes[SITE.url] = [{"name": "t", "capabilities": {"nvidia": 'a"b', "default": "gone"}}]
    with pytest.raises(NoBackendForHost) as caught:
        await shelf.choose("t")
    assert str(caught.value) == (
        'no backend found with capabilities map["default":"gone" "nvidia":"a\\"b"]: '
        '"t" of gallery "site" has for this node "gone", which no gallery has for it'
    )


async def test_a_meta_backend_that_leads_to_another_is_refused(shelf: Shelf) -> None:
    """G-1.4.6."""
    shelf.indexes[SITE.url] = [{"name": "t", "capabilities": {"default": "demo-engine"}}]
    with pytest.raises(NestedMetaBackend) as caught:
        await shelf.choose("t")
    assert str(caught.value) == (
        'meta backends cannot be installed directly: "t" of gallery "site" leads to "demo-engine", '
        "which is one too"
    )


async def test_no_name_and_no_gallery_are_told(shelf: Shelf) -> None:
    """G-1.4.4."""
    with pytest.raises(EmptyBackendName, match=r"^backend name is empty$"):
        await shelf.choose("")
    reader = ReadGalleries(shelf, InMemoryFileSystem(), Path("/backends"))
    with pytest.raises(NoSuchBackend):
        await GalleryIndexes(reader, "default").choose("tool", ())


async def test_no_more_galleries_are_read_than_needed_and_each_once(shelf: Shelf) -> None:
    await shelf.choose("demo-engine")
    assert shelf.asked == [DEMO.url]
    shelf.asked.clear()
    await shelf.choose("site@tool")
    assert shelf.asked == [SITE.url]


@pytest.mark.parametrize("unreadable", [[], [{"name": "tool"}]])
async def test_an_unreadable_gallery_is_not_passed_over(
    shelf: Shelf, unreadable: list[Mapping[str, object]]
) -> None:
    broken = Gallery("broken", "file:///missing.yaml")
    with pytest.raises(GalleryUnreadable) as caught:
        await shelf.choose("tool", broken, SITE)
    assert (caught.value.gallery, caught.value.url) == ("broken", broken.url)
    assert await shelf.names("tool", SITE, broken) == ("Tool", "Tool")


async def test_a_gallery_of_an_unsupported_kind_is_named(shelf: Shelf) -> None:
    github = Gallery("localai", "oci://quay.io/mudler/index")
    with pytest.raises(GalleryUnreadable, match="no reader for source"):
        await shelf.choose("tool", github)


async def test_an_invalid_entry_fails_only_those_who_ask_for_it(shelf: Shelf) -> None:
    """G-W32: a bad entry harms nobody else."""
    shelf.indexes[SITE.url] = [
        {"name": ["odd"]},
        {},
        {"name": "bad", "uri": ["x"]},
        {"name": "t", "uri": "/t"},
    ]
    assert await shelf.names("t") == ("t", "t")
    with pytest.raises(InvalidGalleryEntry):
        await shelf.choose("bad")


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "localai@../x", "a\0b"])
async def test_a_name_that_could_lead_out_is_simply_not_there(shelf: Shelf, name: str) -> None:
    with pytest.raises(WorkerError, match="no backend found with name"):
        await shelf.choose(name)
