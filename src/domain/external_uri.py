"""Installs by uri: what kind of source a uri is, and the name of the backend it becomes."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from .backend import BackendName, parse_backend_name
from .errors import WorkerError

_IMAGE_FILE = "ocifile://"
# Source: LocalAI pkg/downloader/uri.go, LooksLikeOCI.
_IMAGES = ("quay.io", "ghcr.io", "docker.io", "oci://", _IMAGE_FILE, "ollama://")


@dataclass(eq=False)
class NameRequired(WorkerError):
    """An image reference does not say what the backend should be called."""

    def __str__(self) -> str:
        return "specifying a name is required for OCI images"


@dataclass(eq=False)
class NameNotSupported(WorkerError):
    """A uri that is neither an image nor a directory is the name of a gallery entry, which has its own."""

    def __str__(self) -> str:
        return "specifying a name or alias is not supported for gallery backends"


def name_external(uri: str, *, name: str, alias: str, is_directory: bool) -> BackendName | None:
    """The directory name for a backend installed from `uri`; None when `uri` is a gallery entry's name.

    `is_directory`: a local directory lies there. Without a `name`, a directory gives its own, and an
    image file its own less what follows an `@` and the last extension.
    Source: LocalAI core/services/galleryop/backends.go, InstallExternalBackend.

    Raises:
        NameRequired: an image in a registry, without a name.
        NameNotSupported: a gallery entry's name, with another name or alias.
        UnsafeBackendName: the name given, or the one derived, cannot be a directory's.
    """
    if is_directory:
        return parse_backend_name(name or PurePosixPath(uri).name)
    if uri.startswith(_IMAGE_FILE):
        return parse_backend_name(name or PurePosixPath(uri.rpartition("/")[2].partition("@")[0]).stem)
    if uri.startswith(_IMAGES):
        if not name:
            raise NameRequired
        return parse_backend_name(name)
    if name or alias:
        raise NameNotSupported
    return None
