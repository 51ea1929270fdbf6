"""A node with an old version of a backend, a registry that offers a new one, and what a failure leaves."""

import gzip
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from localai_worker.adapters.artifacts.file_payloads import FilePayloads
from localai_worker.adapters.artifacts.ocifile import ImageFiles
from localai_worker.adapters.artifacts.readers import ArtifactReaders
from localai_worker.adapters.artifacts.registry.images import RegistryImages
from localai_worker.adapters.artifacts.url_payloads import UrlPayloads
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.galleries.documents import GalleryDocumentReaders
from localai_worker.adapters.galleries.files import FileDocuments
from localai_worker.adapters.memory.artifacts import InMemoryAttachments
from localai_worker.adapters.memory.clock import ManualClock
from localai_worker.adapters.memory.signatures import InMemorySignatures
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.gallery_index import GalleryIndexes
from localai_worker.domain.install import InstallBackends
from localai_worker.domain.install_errors import InstallFailed
from localai_worker.domain.installed import InstalledBackends
from localai_worker.domain.integrity import Integrity
from localai_worker.domain.read_galleries import ReadGalleries
from tests.archives import entry, tar
from tests.registry import Image, OwnRegistry, registry_images

RUN = entry("run.sh", b"#!/bin/sh\necho runs\n", mode=0o755)
_STORE = ".store"  # of blobs, and of the gallery


def installer(top: Path, images: RegistryImages) -> InstallBackends:
    """Installs from registries, web servers and this node, as a worker does."""
    readers = ArtifactReaders(
        {
            "http://": lambda: UrlPayloads(images.client.web, images.fetcher, images.limits),
            "ocifile://": lambda: ImageFiles(images.limits),
            "file://": lambda: FilePayloads(images.limits),
            "/": lambda: FilePayloads(images.limits),
        },
        lambda: images,
    )
    filesystem = LocalFileSystem()
    installed = InstalledBackends(filesystem, top / "backends", top / "system", "default")
    galleries = ReadGalleries(
        GalleryDocumentReaders({"file://": FileDocuments}), filesystem, installed.backends_path
    )
    return InstallBackends(
        filesystem,
        installed,
        readers,
        GalleryIndexes(galleries, "default"),
        Integrity(InMemoryAttachments(), InMemorySignatures()),
        ManualClock(),
    )


class UpgradeSite:
    """The old version of `tool` is installed by `have_old_version`."""

    def __init__(self, top: Path, own: OwnRegistry, **options: Any) -> None:
        self.top, self.own = top, own
        self.backends = top / "backends"
        self.images = registry_images(self.backends / _STORE, **options)
        self.install = installer(top, self.images)
        self._old: object = None

    async def have_old_version(self) -> None:
        await self._ensure(uri=self.own.pushed.push(Image([gzip.compress(tar([RUN]))]), "old"), name="tool")
        self._old = self._picture()

    async def refusal(self, uri: str) -> str:
        """What is said when the new version, an image, is installed over the old one."""
        return await self._refusal(uri=uri, name="tool")

    async def gallery_refusal(self, index: bytes, backend: str = "tool") -> str:
        """The same for an entry of a gallery with this index."""
        path = self.backends / _STORE / "index.yaml"
        path.write_bytes(index)
        return await self._refusal(backend=backend, galleries=(Gallery("site", f"file://{path}"),))

    async def _refusal(self, **request: Any) -> str:
        with pytest.raises(InstallFailed) as caught:
            await self._ensure(force=True, **request)
        return str(caught.value)

    async def _ensure(
        self, *, backend: str = "tool", galleries: tuple[Gallery, ...] = (), **more: Any
    ) -> None:
        await self.install.ensure(backend=backend, galleries=galleries, **more)

    async def require_old_version(self) -> None:
        """It is as it was, to the last file, it is found and runs, and nothing else has come to be."""
        assert self._picture() == self._old
        assert {path.name for path in self.backends.iterdir()} == {"tool", _STORE}
        listed = await self.install.installed.scan(fresh=True)
        assert set(listed) == {"tool"}
        run_file = listed["tool"].run_file
        assert subprocess.run([run_file], capture_output=True, check=True).stdout == b"runs\n"

    def _picture(self) -> object:
        paths = sorted((self.backends / "tool").rglob("*"))
        modes = [stat.S_IMODE(path.lstat().st_mode) for path in paths]
        return paths, modes, [path.read_bytes() for path in paths if path.is_file()]
