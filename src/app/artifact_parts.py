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
            {
                "ocifile://": self._image_files,
                "http://": lambda: self._url_payloads,
                "https://": lambda: self._url_payloads,
                "file://": self._file_payloads,
                "/": self._file_payloads,
            },
            lambda: self._registry_images,
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
        from ..adapters.artifacts.tree_limits import TreeLimits

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
    def _fetcher(self) -> Any:
        from ..adapters.artifacts.blobs.fetch import BlobFetcher
        from ..adapters.artifacts.web.patience import Patience

        settings = self.settings
        return BlobFetcher(
            self._store,
            Patience(),
            self._web.stall_s,
            settings.disk_floor_bytes,
            settings.download_connections,
        )

    @cached_property
    def _registry_images(self) -> Any:
        from ..adapters.artifacts.registry.images import RegistryImages

        return RegistryImages(self._registry_client, self._fetcher, self._limits)

    @cached_property
    def _url_payloads(self) -> Any:
        from ..adapters.artifacts.url_payloads import UrlPayloads

        return UrlPayloads(self._web, self._fetcher, self._limits)

    def _image_files(self) -> Any:
        from ..adapters.artifacts.ocifile import ImageFiles

        return ImageFiles(self._limits, floor_bytes=self.settings.disk_floor_bytes)

    def _file_payloads(self) -> Any:
        from ..adapters.artifacts.file_payloads import FilePayloads

        return FilePayloads(self._limits, self.settings.disk_floor_bytes)
