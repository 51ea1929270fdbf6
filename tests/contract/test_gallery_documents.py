"""Everything that fetches gallery documents keeps these promises: the one in memory and the real ones."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from localai_worker.adapters.galleries.documents import GalleryDocumentReaders
from localai_worker.adapters.galleries.files import FileDocuments
from localai_worker.adapters.galleries.http import HttpDocuments
from localai_worker.adapters.memory.galleries import InMemoryGalleries
from localai_worker.domain.errors import ArtifactInvalid, ArtifactUnavailable, UnsupportedSource
from localai_worker.domain.ports.galleries import GalleryDocuments
from localai_worker.domain.yaml_values import typed
from tests.web import Page, web_server

INDEX = json.dumps([{"name": "demo", "version": 1.10, "alias": None}, {"name": "cpu-demo"}]).encode()
TEXTS = [{"name": "demo", "version": "1.1", "alias": ""}, {"name": "cpu-demo"}]


@dataclass
class Stage:
    """Documents, the url of one, and a way to put content there."""

    documents: GalleryDocuments
    url: str
    put: Callable[[bytes], None]
    missing: str
    root: Path


@pytest.fixture(params=["memory", "file", "http"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        real = GalleryDocumentReaders({"file://": FileDocuments, "http://": HttpDocuments})
        match request.param:
            case "memory":
                memory = InMemoryGalleries()

                def put_memory(content: bytes) -> None:
                    memory.indexes["file:///index.yaml"] = content

                yield Stage(memory, "file:///index.yaml", put_memory, "file:///other.yaml", tmp_path)
            case "file":
                path = tmp_path / "index.yaml"
                missing = f"file://{tmp_path}/other.yaml"

                def put_file(content: bytes) -> None:
                    fresh = tmp_path / "fresh"
                    fresh.write_bytes(content)
                    fresh.replace(path)

                yield Stage(real, f"file://{path}", put_file, missing, tmp_path)
            case _:
                web = stack.enter_context(web_server())

                def put_page(content: bytes) -> None:
                    web.pages["/index.yaml"] = Page(content, tag=f'"{hash(content)}"')

                yield Stage(real, web.url("/index.yaml"), put_page, web.url("/other.yaml"), tmp_path)


async def test_a_document_is_fetched_and_read_with_its_scalars_as_text(stage: Stage) -> None:
    stage.put(INDEX)
    document = await stage.documents.fetch(stage.url, trusted_root=stage.root)
    assert document is not None
    assert document.content == INDEX
    assert await stage.documents.parse(document.content, url=stage.url) == TEXTS


async def test_a_known_version_is_not_fetched_again_and_another_one_is(stage: Stage) -> None:
    stage.put(INDEX)
    first = await stage.documents.fetch(stage.url, trusted_root=stage.root)
    assert first is not None
    assert first.version
    again = await stage.documents.fetch(stage.url, trusted_root=stage.root, known=first.version)
    assert again is None
    stage.put(b'[{"name": "other"}]')
    changed = await stage.documents.fetch(stage.url, trusted_root=stage.root, known=first.version)
    assert changed is not None
    assert changed.content == b'[{"name": "other"}]'
    assert changed.version != first.version


async def test_a_document_that_is_not_there_is_unavailable(stage: Stage) -> None:
    stage.put(INDEX)
    with pytest.raises(ArtifactUnavailable):
        await stage.documents.fetch(stage.missing, trusted_root=stage.root)


@pytest.mark.parametrize("url", ["oci://quay.io/x/y", "ftp://h/index.yaml", "/index.yaml"])
async def test_a_kind_nobody_reads_is_refused_by_name(stage: Stage, url: str) -> None:
    stage.put(INDEX)
    with pytest.raises(UnsupportedSource) as caught:
        await stage.documents.fetch(url, trusted_root=stage.root)
    assert caught.value.uri == url
    assert "file://" in caught.value.supported


@pytest.mark.parametrize(
    "document",
    [
        {"a": 1, "b": 0.7, "c": True, "d": None, "e": "", "f": [], "g": {}, "h": -3, "i": 1e-07},
        {
            "texts": [
                "1",
                "0.7",
                "true",
                "null",
                "~",
                "yes",
                "0x1f",
                "1_000",
                "",
                " x ",
                "- x",
                "a: b",
                "#c",
                "<<",
            ]
        },
        {"z": {"y": [{"b": 1, "a": ["x", {"k": "two\nlines\n"}]}, [1, [2]]]}, "a": "\n", "u": "ü\t'\""},
        {"long": "x " * 200, "lines": "a\n\n  b\nc", "trailing": "a \nb"},
    ],
)
async def test_a_document_that_is_written_reads_the_same(stage: Stage, document: dict[str, object]) -> None:
    written = await stage.documents.write(document)
    read = typed(await stage.documents.parse(written, url="u"))
    assert read == document
    assert isinstance(read, dict)
    assert list(read) == list(document)


@pytest.mark.parametrize("content", [b"", b"[", b"\xff\xfe\xfa"])
async def test_what_is_no_document_is_invalid(stage: Stage, content: bytes) -> None:
    with pytest.raises(ArtifactInvalid):
        await stage.documents.parse(content, url=stage.url)


async def test_documents_in_memory_can_be_taken_offline(tmp_path: Path) -> None:
    documents = InMemoryGalleries({"file:///index.yaml": [{"name": "x"}]}, offline=True)
    with pytest.raises(ArtifactUnavailable, match="offline"):
        await documents.fetch("file:///index.yaml", trusted_root=tmp_path)
