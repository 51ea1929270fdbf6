"""What few workers need, imported when it is built: fetching models, and explaining backends."""

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..domain.index_urls import hugging_face_endpoint
from ..domain.read_galleries import ReadGalleries

if TYPE_CHECKING:
    from ..domain.custody import Custody
    from ..domain.download_file import DownloadFile
    from ..domain.ensure_snapshot import EnsureSnapshot
    from ..domain.explain_backend import ExplainBackend
    from .container import Container
    from .settings import Settings


def downloads() -> Any:
    """Files on web servers."""
    from ..adapters.downloads.http import HttpDownloads

    return HttpDownloads()


def archives(settings: "Settings") -> Any:
    """Archives among a model's files."""
    from ..adapters.archives.local import LocalArchives

    return LocalArchives(floor_bytes=settings.disk_floor_bytes)


def model_hub(environment: Mapping[str, str]) -> Any:
    """Whole repositories of models."""
    from ..adapters.downloads.hub import HttpModelHub

    return HttpModelHub(hugging_face_endpoint(environment))


def file_locks() -> Any:
    """Locks between processes that share a models directory."""
    from ..adapters.filesystem.file_locks import LocalFileLocks

    return LocalFileLocks()


def prefetcher(container: "Container") -> Callable[[], Coroutine[Any, Any, None]]:
    """Fetches the models that the settings name; without any it does nothing, and loads nothing."""

    async def prefetch() -> None:
        if container.settings().prefetch_models:
            await _prefetch(container).run()

    return prefetch


def _prefetch(container: "Container") -> Any:
    from ..domain.bind_snapshots import BindSnapshots
    from ..domain.download_file import DownloadFile
    from ..domain.install_model import InstallModel
    from ..domain.prefetch_models import PrefetchModels

    settings, filesystem, documents = container.settings(), container.filesystem(), container.gallery_source()
    hugging_face = hugging_face_endpoint(container.environment())
    models_path = settings.models_path
    download = DownloadFile(filesystem, container.downloads(), floor_bytes=settings.disk_floor_bytes)
    copies = models_path.parent / "cache/gallery"
    return PrefetchModels(
        ids=settings.prefetch_models,
        galleries=settings.galleries,
        indexes=ReadGalleries(documents, filesystem, models_path, copies, hugging_face),
        installer=InstallModel(
            filesystem,
            models_path,
            documents,
            download,
            container.artifacts(),
            container.archives(),
            container.prefetched(),
            BindSnapshots(_snapshots(container, download), container.prefetched()),
            hugging_face,
        ),
        downloads=container.downloads(),
        names=container.network(),
        hardware=container.hardware(),
        capability=container.detection().capability,
        progress=container.prefetch_progress(),
    )


def _snapshots(container: "Container", download: "DownloadFile") -> "EnsureSnapshot":
    from ..domain.build_snapshot import BuildSnapshot
    from ..domain.committed_snapshots import CommittedSnapshots
    from ..domain.ensure_snapshot import EnsureSnapshot
    from ..domain.partial_trees import PartialTrees
    from ..domain.resolve_snapshot import ResolveSnapshot
    from ..domain.snapshot_spec import TOKEN_VARIABLE

    filesystem, models_path = container.filesystem(), container.settings().models_path
    token = container.environment().get(TOKEN_VARIABLE, "").strip()
    committed = CommittedSnapshots(filesystem, models_path)
    return EnsureSnapshot(
        filesystem,
        models_path,
        resolver=ResolveSnapshot(container.model_hub(), token),
        builder=BuildSnapshot(filesystem, models_path, download, committed),
        committed=committed,
        trees=PartialTrees(filesystem, models_path, container.clock(), partial(_writer, container.custody())),
        locks=container.file_locks(),
    )


def _writer(custody: "Custody") -> str:
    """This worker's name among those that fetch into one models directory: its state directory's."""
    return hashlib.sha256(custody.owner.encode()).hexdigest()[:16]


def explanation(container: "Container") -> "ExplainBackend":
    """Tells what an install would do."""
    from ..domain.explain_backend import ExplainBackend

    return ExplainBackend(
        filesystem=container.filesystem(),
        installed=container.installed(),
        artifacts=container.artifacts(),
        galleries=container.galleries(),
        integrity=container.integrity(),
        detection=container.detection(),
    )
