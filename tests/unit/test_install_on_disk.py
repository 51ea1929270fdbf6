"""The whole way on real parts: a gallery file, an image file, a directory, the machine's file system."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from localai_worker.adapters.artifacts.local_directory import LocalDirectories
from localai_worker.adapters.artifacts.ocifile import ImageFiles
from localai_worker.adapters.artifacts.readers import ArtifactReaders
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.galleries.documents import GalleryDocumentReaders
from localai_worker.adapters.galleries.files import FileDocuments
from localai_worker.adapters.memory.artifacts import InMemoryAttachments
from localai_worker.adapters.memory.clock import ManualClock
from localai_worker.adapters.memory.signatures import InMemorySignatures
from localai_worker.domain.backend_metadata import BackendMetadata
from localai_worker.domain.galleries import Gallery, parse_galleries
from localai_worker.domain.gallery_index import GalleryIndexes
from localai_worker.domain.install import InstallBackends
from localai_worker.domain.install_errors import InstallFailed
from localai_worker.domain.installed import InstalledBackends
from localai_worker.domain.integrity import Integrity
from localai_worker.domain.read_galleries import ReadGalleries
from tests import archives
from tests.archives import entry, symlink, tar

LAYERS = (
    tar([entry("run.sh", b"#!/bin/sh\n", mode=0o755), entry("old.so", b"1")]),
    tar([entry(".wh.old.so"), entry("lib/new.so", b"2", mode=0o4755), symlink("lib/link", "new.so")]),
)


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def installer(tmp_path: Path) -> InstallBackends:
    filesystem = LocalFileSystem()
    installed = InstalledBackends(filesystem, tmp_path / "backends", tmp_path / "system", "default")
    documents = GalleryDocumentReaders({"file://": FileDocuments})
    return InstallBackends(
        filesystem,
        installed,
        ArtifactReaders({"ocifile://": ImageFiles, "/": LocalDirectories}),
        GalleryIndexes(ReadGalleries(documents, filesystem, installed.backends_path), "default"),
        Integrity(InMemoryAttachments(), InMemorySignatures()),
        ManualClock(),
    )


def site(top: Path, *, uri: str) -> tuple[Gallery, ...]:
    """A gallery below the backends directory, where `file://` indexes must lie."""
    (top / "backends").mkdir(exist_ok=True)
    meta = "- name: t\n  capabilities: {default: cpu-t}\n"
    index = f"{meta}- name: cpu-t\n  alias: t\n  version: 1.10\n  uri: {uri}\n"
    (top / "backends/index.yaml").write_text(index)
    return parse_galleries(f'[{{"name": "site", "url": "file://{top}/backends/index.yaml"}}]')


def picture(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): stat.filemode(path.lstat().st_mode)
        for path in sorted(directory.rglob("*"))
    }


async def test_a_meta_backend_from_a_gallery_file_and_an_image_file(
    installer: InstallBackends, tmp_path: Path
) -> None:
    archive = archives.write_oci(tmp_path / "t.tar", *LAYERS)
    galleries = site(tmp_path, uri=f"ocifile://{archive}")
    backend = await installer.ensure(backend="site@t", galleries=galleries)
    assert backend.run_file == tmp_path / "backends/cpu-t/run.sh"
    assert picture(tmp_path / "backends") == {
        "index.yaml": picture(tmp_path / "backends")["index.yaml"],
        "cpu-t": "drwxr-x---",
        "cpu-t/run.sh": "-rwxr-xr-x",
        "cpu-t/lib": "drwxr-xr-x",
        "cpu-t/lib/new.so": "-rwxr-xr-x",
        "cpu-t/lib/link": "lrwxrwxrwx",
        "cpu-t/metadata.json": "-rw-r--r--",
        "t": "drwxr-x---",
        "t/metadata.json": "-rw-r--r--",
    }
    metadata = BackendMetadata.from_json((tmp_path / "backends/cpu-t/metadata.json").read_bytes())
    assert (metadata.version, metadata.installed_at) == ("1.10", "2026-01-01T00:00:00Z")
    assert metadata.digest.startswith("sha256:")
    assert [row.name for row in await installer.installed.rows()] == ["cpu-t"]


async def test_a_local_directory_becomes_a_backend(installer: InstallBackends, tmp_path: Path) -> None:
    (tmp_path / "trees/tool").mkdir(parents=True)
    (tmp_path / "trees/tool/run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "trees/tool/run.sh").chmod(0o755)
    uri = str(tmp_path / "trees/tool")
    backend = await installer.ensure(backend="", galleries=(), uri=uri, alias="second")
    assert os.access(backend.run_file, os.X_OK)
    found = await installer.installed.find("second")
    assert found is not None
    assert found.run_file == backend.run_file


@pytest.mark.parametrize("obstacle", ["file", "dangling link", "directory", "link to a directory"])
async def test_whatever_stands_in_the_place_of_a_backend_gives_way(
    installer: InstallBackends, tmp_path: Path, obstacle: str
) -> None:
    """G-F7, G-F9: no stale file blocks an install, and none of the old tree shines through."""
    archive = archives.write_docker(tmp_path / "t.tar", *LAYERS)
    galleries = site(tmp_path, uri=f"ocifile://{archive}")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/stale").touch()
    place = tmp_path / "backends/cpu-t"
    match obstacle:
        case "file":
            place.write_text("stale")
        case "dangling link":
            place.symlink_to("nowhere")
        case "directory":
            place.mkdir()
            (place / "stale").touch()
        case _:
            place.symlink_to("../elsewhere")
    await installer.ensure(backend="t", galleries=galleries)
    assert sorted(path.name for path in place.iterdir()) == ["lib", "metadata.json", "run.sh"]
    assert not place.is_symlink()
    assert (tmp_path / "elsewhere/stale").exists()


async def test_a_hostile_image_leaves_no_trace(installer: InstallBackends, tmp_path: Path) -> None:
    """G-W6."""
    archive = archives.write_oci(tmp_path / "t.tar", *LAYERS, tar([entry("../../escaped", b"gotcha")]))
    galleries = site(tmp_path, uri=f"ocifile://{archive}")
    with pytest.raises(InstallFailed, match="leaves the artifact"):
        await installer.ensure(backend="t", galleries=galleries)
    assert set(picture(tmp_path / "backends")) == {"index.yaml"}
    assert {path.name for path in tmp_path.iterdir()} == {"backends", "t.tar"}


async def test_a_program_that_links_out_of_its_image_is_refused(
    installer: InstallBackends, tmp_path: Path
) -> None:
    """G-W6."""
    archive = archives.write_oci(tmp_path / "t.tar", tar([symlink("run.sh", "/bin/sh")]))
    with pytest.raises(InstallFailed, match="outside allowed directory"):
        await installer.ensure(backend="", galleries=(), uri=f"ocifile://{archive}")
