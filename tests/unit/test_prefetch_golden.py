"""Prefetch against the golden gallery: a real disk, a real web server, the tree upstream leaves."""

import hashlib
import json
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localai_worker.adapters.archives.local import LocalArchives
from localai_worker.adapters.artifacts.local_directory import LocalDirectories
from localai_worker.adapters.downloads.http import HttpDownloads
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.galleries.documents import GalleryDocumentReaders
from localai_worker.adapters.galleries.files import FileDocuments
from localai_worker.adapters.galleries.http import HttpDocuments
from localai_worker.adapters.memory.hardware import InMemoryHardware
from localai_worker.adapters.network.local import LocalNetwork
from localai_worker.domain.download_file import DownloadFile
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.index_urls import hugging_face_endpoint
from localai_worker.domain.install_model import InstallModel
from localai_worker.domain.prefetch_models import PrefetchModels
from localai_worker.domain.prefetched_files import PrefetchedFiles
from localai_worker.domain.read_galleries import ReadGalleries
from tests.snapshots import on_disk
from tests.web import Page, Web, web_server

GOLDEN = Path(__file__).parents[1] / "golden/models"
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected-tree.json").read_text())
IDS = EXPECTED["env"]["LOCALAI_PREFETCH_MODELS"].split(",")


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        for path, content in EXPECTED["server"].items():
            if not content.startswith("status 404"):
                server.pages[path] = Page(content.encode())
        yield server


class Node:
    """A worker's models directory with the golden gallery in it."""

    def __init__(self, top: Path, web: Web) -> None:
        self.web = web
        self.models = top / "models"
        (self.models / "gal").mkdir(parents=True)
        for name in ("gallery-index.yaml", "linked-base.yaml"):
            (self.models / "gal" / name).write_text(self.ported((GOLDEN / name).read_text()))
        self.gallery = Gallery("acme", f"file://{self.models}/gal/gallery-index.yaml")

    def ported(self, text: str) -> str:
        return text.replace("@PORT@", str(self.web.port))

    async def prefetch(self, *ids: str) -> None:
        filesystem, downloads = LocalFileSystem(), HttpDownloads()
        endpoint = hugging_face_endpoint({"HF_ENDPOINT": f"http://127.0.0.1:{self.web.port}"})
        documents = GalleryDocumentReaders(
            {"file://": FileDocuments, "http://": HttpDocuments, "https://": HttpDocuments}
        )
        cache = self.models.parent / "cache/gallery"
        prefetch = PrefetchModels(
            ids=ids or IDS,
            galleries=[self.gallery],
            indexes=ReadGalleries(documents, filesystem, self.models, cache, endpoint),
            installer=InstallModel(
                filesystem,
                self.models,
                documents,
                DownloadFile(filesystem, downloads, first_wait_s=0),
                LocalDirectories(),
                LocalArchives(),
                prefetched := PrefetchedFiles(filesystem, self.models),
                on_disk(self.models, endpoint, prefetched),
                endpoint,
            ),
            downloads=downloads,
            names=LocalNetwork(),
            hardware=InMemoryHardware(),
            capability="default",
        )
        await prefetch.run()

    def tree(self) -> dict[str, tuple[str, bytes | None]]:
        """Mode and content by path; the gallery itself is left out."""
        found: dict[str, tuple[str, bytes | None]] = {}
        for path in sorted(self.models.rglob("*")):
            name = path.relative_to(self.models).as_posix()
            if name.split("/")[0] != "gal":
                mode = f"{stat.S_IMODE(path.stat().st_mode):04o}"
                found[name] = (mode, path.read_bytes() if path.is_file() else None)
        return found


@pytest.fixture
def node(tmp_path: Path, web: Web) -> Node:
    return Node(tmp_path, web)


async def test_the_tree_is_upstreams_byte_for_byte(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """S-W34, M-2.1, M-2.8, M-3.3, M-3.5, M-3.6, M-4.1.2, M-4.1.3, M-4.1.4, M-4.1.5, M-4.3.1, M-4.3.2,
    M-9.1, M-9.2, M-9.3, M-9.4.
    """
    with caplog.at_level(logging.WARNING):
        await node.prefetch()
    tree = node.tree()
    expected = [each for each in EXPECTED["tree_under_models"] if each["path"] != "gal"]
    assert sorted(tree) == sorted(each["path"] for each in expected)
    for each in expected:
        mode, content = tree[each["path"]]
        assert mode == each["mode"], each["path"]
        if content is None:
            assert each["type"] == "dir"
        elif "sha256" in each:
            assert hashlib.sha256(content).hexdigest() == each["sha256"]
        else:
            text = each["text"] if "text" in each else (GOLDEN / each["text_in"]).read_text()
            assert content.decode() == node.ported(text), each["path"]
    warnings = [
        record.message for record in caplog.records if record.message.startswith("model not prefetched")
    ]
    assert [warning.split()[3] for warning in warnings] == [
        "model=acme-files-escape",
        "model=acme-empty",
        "model=no-such-model",
    ]
    for warning, why in zip(
        warnings,
        ("path is outside of trusted root", "installs nothing", "no model found with name"),
        strict=True,
    ):
        assert why in warning


async def test_the_index_is_kept_beside_the_models(node: Node) -> None:
    """M-2.2."""
    await node.prefetch("acme-inline")
    copy = hashlib.sha256(node.gallery.url.encode()).hexdigest()
    kept = node.models.parent / "cache/gallery" / f"{copy}.yaml"
    assert kept.read_bytes() == (node.models / "gal/gallery-index.yaml").read_bytes()


async def test_a_second_run_fetches_no_file_again_and_writes_the_same(node: Node) -> None:
    """S-W34, M-1.8, M-4.2.2."""
    await node.prefetch()
    before = node.tree()
    times = {name: (node.models / name).stat().st_mtime_ns for name in before if name.endswith(".gguf")}
    node.web.visits.clear()
    await node.prefetch()
    assert node.web.paths("GET") == []
    assert node.tree() == before
    assert {name: (node.models / name).stat().st_mtime_ns for name in times} == times


async def test_a_file_that_was_changed_is_fetched_anew(node: Node) -> None:
    """M-4.2.2."""
    await node.prefetch("acme-linked")
    before = node.tree()
    (node.models / "linked-tiny.gguf").write_bytes(b"something else")
    await node.prefetch("acme-linked")
    assert node.tree() == before


async def test_nothing_of_an_entry_that_leads_out_is_fetched(node: Node) -> None:
    """M-4.2.1: all names are looked at before the first download."""
    await node.prefetch("acme-files-escape")
    assert node.tree() == {}
    assert not (node.models.parent / "escape.gguf").exists()
    assert node.web.visits == []


async def test_a_broken_transfer_leaves_its_part_and_the_next_boot_goes_on(node: Node) -> None:
    """M-4.2.4, M-4.2.7, M-8.4: also for short forms of urls."""
    content = EXPECTED["server"]["/dl/linked-tiny.gguf"].encode()
    whole = node.web.pages["/dl/linked-tiny.gguf"]
    node.web.pages["/dl/linked-tiny.gguf"] = Page(content[:7], headers={"Content-Length": str(len(content))})
    await node.prefetch("acme-linked")
    assert "acme-linked.yaml" not in node.tree()
    node.web.pages["/dl/linked-tiny.gguf"] = whole
    node.web.visits.clear()
    await node.prefetch("acme-linked")
    assert (node.models / "linked-tiny.gguf").read_bytes() == content
    asked = [visit.headers.get("range") for visit in node.web.visits if visit.path == "/dl/linked-tiny.gguf"]
    assert asked == ["bytes=7-"]
    assert [name for name in node.tree() if name.startswith(".") and "gallery" not in name] == []
