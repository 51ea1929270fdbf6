"""Installs that fail on real parts: a clear error, the old backend runnable, nothing half-written visible."""

import gzip
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from localai_worker.adapters.artifacts.registry.images import RegistryImages
from localai_worker.adapters.artifacts.tree_limits import TreeLimits
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.galleries.documents import GalleryDocumentReaders
from localai_worker.adapters.memory.artifacts import InMemoryAttachments
from localai_worker.adapters.memory.clock import ManualClock
from localai_worker.adapters.memory.signatures import InMemorySignatures
from localai_worker.domain.gallery_index import GalleryIndexes
from localai_worker.domain.install import InstallBackends
from localai_worker.domain.install_errors import InstallFailed
from localai_worker.domain.installed import InstalledBackends
from localai_worker.domain.integrity import Integrity
from localai_worker.domain.read_galleries import ReadGalleries
from tests import archives
from tests.archives import entry, tar
from tests.registry import Image, OwnRegistry, Request, registry_images

RUN = entry("run.sh", b"#!/bin/sh\necho runs\n", mode=0o755)
MIB = 1 << 20


def installer(top: Path, images: RegistryImages) -> InstallBackends:
    filesystem = LocalFileSystem()
    installed = InstalledBackends(filesystem, top / "backends", top / "system", "default")
    galleries = ReadGalleries(GalleryDocumentReaders({}), filesystem, installed.backends_path)
    return InstallBackends(
        filesystem,
        installed,
        images,
        GalleryIndexes(galleries, "default"),
        Integrity(InMemoryAttachments(), InMemorySignatures()),
        ManualClock(),
    )


class Site:
    """A node with the old version of `tool` installed, and a registry that offers a new one."""

    def __init__(self, top: Path, own: OwnRegistry, **options: Any) -> None:
        self.top, self.own = top, own
        self.images = registry_images(top / "backends/.store", **options)
        self.install = installer(top, self.images)

    async def ensure(self, uri: str, *, force: bool = False) -> None:
        await self.install.ensure(backend="tool", galleries=(), uri=uri, name="tool", force=force)

    async def have_old_version(self) -> None:
        await self.ensure(self.own.pushed.push(Image([gzip.compress(tar([RUN]))]), "old"))

    async def refusal(self, uri: str) -> str:
        with pytest.raises(InstallFailed) as caught:
            await self.ensure(uri, force=True)
        return str(caught.value)

    def old_version_runs(self) -> bool:
        ran = subprocess.run([self.top / "backends/tool/run.sh"], capture_output=True, check=True)
        visible = [path.name for path in (self.top / "backends").iterdir() if path.name != ".store"]
        return ran.stdout == b"runs\n" and visible == ["tool"]


NEW = gzip.compress(tar([RUN, entry("data", os.urandom(200_000))]))


def answers(status: int) -> Callable[[Request], bool]:
    def fault(request: Request) -> bool:
        if "/blobs/" in request.path:
            request.answer(status, b"")
        return "/blobs/" in request.path

    return fault


def cut(request: Request) -> bool:
    return "/blobs/" in request.path and request.send_cut(NEW, 0)


def forge(request: Request) -> bool:
    if "/blobs/" in request.path:
        request.answer(200, NEW[:-8] + bytes(8))
    return "/blobs/" in request.path


FAILURES: dict[str, tuple[bytes, Callable[[Request], bool] | None, str]] = {
    "403": (NEW, answers(403), "answers 403"),
    "404": (NEW, answers(404), "answers 404"),
    "500": (NEW, answers(500), "answers 500"),
    "cut": (NEW, cut, "too early"),
    "forged": (NEW, forge, "layer 1 of 1"),
    "truncated gzip": (NEW[:-100], None, "broken gzip"),
    "bomb": (gzip.compress(tar([RUN, entry("zeros", bytes(12 * MIB))])), None, "unpacks to more than"),
    "hostile": (gzip.compress(tar([RUN, entry("../../evil", b"1")])), None, "leaves the artifact"),
    "device": (gzip.compress(tar([RUN, entry("null", type=b"3")])), None, "a device"),
    "no program": (gzip.compress(archives.tree_tar({"x": b"1"})), None, "run file not found"),
    "a directory as program": (
        gzip.compress(tar([archives.directory("run.sh")])),
        None,
        "run file not found",
    ),
}


@pytest.mark.parametrize(("layer", "fault", "reason"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_failed_upgrade_leaves_the_old_version_runnable(
    own: OwnRegistry, tmp_path: Path, layer: bytes, fault: Callable[[Request], bool] | None, reason: str
) -> None:
    """G-F7, G-W6: whatever is wrong with the new one."""
    site = Site(tmp_path, own, limits=TreeLimits(10 * MIB))
    await site.have_old_version()
    uri = own.pushed.push(Image([layer]), "new")
    if fault is not None:
        own.faults.append(fault)
    text = await site.refusal(uri)
    assert reason in text
    assert uri in text
    assert site.old_version_runs()
    assert not (tmp_path / "evil").exists()


@contextmanager
def disk_of(place: Path, size_mib: int) -> Iterator[None]:
    """A file system of its own at `place`; needs the right to mount one."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk_of(tmp_path / "small", 8):
        yield tmp_path / "small"


async def test_a_disk_that_fills_up_in_the_middle_is_told_and_leaves_the_old_version(
    own: OwnRegistry, small_disk: Path
) -> None:
    site = Site(small_disk, own)
    await site.have_old_version()
    layer = gzip.compress(tar([RUN, entry("zeros", bytes(20 * MIB))]))  # small until it is unpacked
    text = await site.refusal(own.pushed.push(Image([layer]), "new"))
    assert "No space left on device" in text
    assert site.old_version_runs()


async def test_a_download_that_does_not_fit_is_refused_before_its_first_byte(
    own: OwnRegistry, small_disk: Path
) -> None:
    site = Site(small_disk, own)
    await site.have_old_version()
    uri = own.pushed.push(Image([gzip.compress(tar([RUN, entry("x", os.urandom(6 * MIB))]))]), "new")
    asked = len(own.gets("/blobs/"))
    assert "MiB are missing" in await site.refusal(uri)
    assert len(own.gets("/blobs/")) == asked
    assert site.old_version_runs()


async def test_the_floor_holds_while_a_payload_is_written(own: OwnRegistry, tmp_path: Path) -> None:
    """G-W6: others on this disk keep their room."""
    disk = tmp_path / "disk"
    with disk_of(disk, 100):
        site = Site(disk, own, floor_bytes=50 * MIB)
        await site.have_old_version()
        layer = gzip.compress(tar([RUN, entry("zeros", bytes(90 * MIB))]))
        text = await site.refusal(own.pushed.push(Image([layer]), "new"))
        assert "LOCALAI_WORKER_DISK_FLOOR" in text
        assert site.old_version_runs()


async def test_a_read_only_backends_path_is_told(own: OwnRegistry, tmp_path: Path) -> None:
    site = Site(tmp_path, own)
    await site.have_old_version()
    backends = tmp_path / "backends"
    bound = subprocess.run(
        ["mount", "--bind", "-o", "ro", backends, backends], capture_output=True, check=False
    )
    remounted = bound.returncode == 0
    if not remounted:
        if os.geteuid() == 0:
            pytest.skip("root writes everywhere, and nothing can be mounted")
        backends.chmod(0o500)
    try:
        text = await site.refusal(own.pushed.push(Image([NEW]), "new"))
    finally:
        with suppress(OSError):
            backends.chmod(0o755)
        if remounted:
            subprocess.run(["umount", "-l", backends], check=True)
    assert f"cannot write {backends}" in text
    assert site.old_version_runs()
