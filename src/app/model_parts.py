"""What few workers need, imported when it is built: fetching models, and explaining backends."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ..domain.index_urls import hugging_face_endpoint
from ..domain.read_galleries import ReadGalleries

if TYPE_CHECKING:
    from ..domain.explain_backend import ExplainBackend
    from .container import Container


def downloads() -> Any:
    """Files on web servers."""
    from ..adapters.downloads.http import HttpDownloads

    return HttpDownloads()


def archives() -> Any:
    """Archives among a model's files."""
    from ..adapters.archives.local import LocalArchives

    return LocalArchives()


def prefetcher(container: "Container") -> Callable[[], Coroutine[Any, Any, None]]:
    """Fetches the models that the settings name; without any it does nothing, and loads nothing."""

    async def prefetch() -> None:
        if container.settings().prefetch_models:
            await _prefetch(container).run()

    return prefetch


def _prefetch(container: "Container") -> Any:
    from ..domain.download_file import DownloadFile
    from ..domain.install_model import InstallModel
    from ..domain.prefetch_models import PrefetchModels

    settings, filesystem, documents = container.settings(), container.filesystem(), container.gallery_source()
    hugging_face = hugging_face_endpoint(container.environment())
    models_path = settings.models_path
    copies = models_path.parent / "cache/gallery"
    return PrefetchModels(
        ids=settings.prefetch_models,
        galleries=settings.galleries,
        indexes=ReadGalleries(documents, filesystem, models_path, copies, hugging_face),
        installer=InstallModel(
            filesystem,
            models_path,
            documents,
            DownloadFile(filesystem, container.downloads()),
            container.artifacts(),
            container.archives(),
            container.prefetched(),
            hugging_face,
        ),
        downloads=container.downloads(),
        names=container.network(),
        hardware=container.hardware(),
        capability=container.detection().capability,
    )


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
