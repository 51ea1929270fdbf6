"""The container's part for payloads: which reader takes which uri, each imported when its first one comes."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from .settings import Settings

BLOBS = ".blobs"  # hidden, so that no worker takes it for a backend; where backends survive, so does it


def artifact_readers(settings: Settings, environment: Mapping[str, str]) -> Any:
    """An `ArtifactSource` for everything this worker installs from."""
    from ..adapters.artifacts.readers import ArtifactReaders
    from ..adapters.artifacts.tree import TreeLimits

    limits = TreeLimits(settings.backend_size_limit_bytes)
    floor_bytes = settings.disk_floor_bytes

    @cache
    def web() -> Any:
        from ..adapters.artifacts.web.client import WebClient

        return WebClient(environment, connections=settings.download_connections)

    @cache
    def store() -> Any:
        from ..adapters.artifacts.blobs.store import BlobStore

        return BlobStore(settings.backends_path / BLOBS, settings.backend_cache_bytes)

    @cache
    def registry_client() -> Any:
        from ..adapters.artifacts.registry.client import RegistryClient
        from ..adapters.artifacts.registry.credentials import DockerLogins

        return RegistryClient(web(), DockerLogins(environment))

    @cache
    def registry_images() -> Any:
        from ..adapters.artifacts.registry.images import RegistryImages

        return RegistryImages(registry_client(), store(), floor_bytes, settings.download_connections, limits)

    def image_files() -> Any:
        from ..adapters.artifacts.ocifile import ImageFiles

        return ImageFiles(limits, floor_bytes=floor_bytes)

    def local_directories() -> Any:
        from ..adapters.artifacts.local_directory import LocalDirectories

        return LocalDirectories(limits, floor_bytes)

    return ArtifactReaders({"ocifile://": image_files, "/": local_directories}, registry_images)
