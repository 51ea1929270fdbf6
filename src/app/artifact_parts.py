"""The container's part for payloads: which reader takes which uri, each imported when its first one comes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .settings import Settings

BLOBS = ".blobs"  # hidden, so that no worker takes it for a backend; it lives where backends do


@dataclass
class ArtifactParts:
    """What payloads are read with; connections, logins and blobs are shared by all that need them."""

    settings: Settings
    environment: Mapping[str, str]

    def readers(self) -> Any:
        """An `ArtifactSource` for everything this worker installs from."""
        from ..adapters.artifacts.readers import ArtifactReaders

        return ArtifactReaders(
            {"ocifile://": self._image_files, "/": self._local_directories}, lambda: self._registry_images
        )

    def attachments(self) -> Any:
        """An `ImageAttachments` for images in registries."""
        from ..adapters.artifacts.attachments import LateAttachments

        return LateAttachments(self._attachments)

    def _attachments(self) -> Any:
        from ..adapters.artifacts.registry.attachments import RegistryAttachments

        return RegistryAttachments(self._registry_client)

    @cached_property
    def _limits(self) -> Any:
        from ..adapters.artifacts.tree import TreeLimits

        return TreeLimits(self.settings.backend_size_limit_bytes)

    @cached_property
    def _web(self) -> Any:
        from ..adapters.artifacts.web.client import WebClient

        return WebClient(self.environment, connections=self.settings.download_connections)

    @cached_property
    def _store(self) -> Any:
        from ..adapters.artifacts.blobs.store import BlobStore

        return BlobStore(self.settings.backends_path / BLOBS, self.settings.backend_cache_bytes)

    @cached_property
    def _registry_client(self) -> Any:
        from ..adapters.artifacts.registry.client import RegistryClient
        from ..adapters.artifacts.registry.credentials import DockerLogins

        return RegistryClient(self._web, DockerLogins(self.environment))

    @cached_property
    def _registry_images(self) -> Any:
        from ..adapters.artifacts.registry.images import RegistryImages

        settings = self.settings
        return RegistryImages(
            self._registry_client,
            self._store,
            settings.disk_floor_bytes,
            settings.download_connections,
            self._limits,
        )

    def _image_files(self) -> Any:
        from ..adapters.artifacts.ocifile import ImageFiles

        return ImageFiles(self._limits, floor_bytes=self.settings.disk_floor_bytes)

    def _local_directories(self) -> Any:
        from ..adapters.artifacts.local_directory import LocalDirectories

        return LocalDirectories(self._limits, self.settings.disk_floor_bytes)
