"""Images saved to a local file: `ocifile://<path>`."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from anyio import from_thread, to_thread

from ...domain.errors import ArtifactInvalid, ArtifactUnavailable
from ...domain.ports.artifacts import FetchedArtifact
from .image_archive import ImageArchive
from .image_manifest import host_platform
from .layers import apply_layer
from .tree import TreeBuilder, TreeLimits

SCHEME = "ocifile://"


@dataclass(frozen=True)
class ImageFiles:
    """An `ArtifactSource` for the tar files that `docker save` and OCI tools write, one image in each.

    Source of the scheme: LocalAI pkg/oci/image.go, which reads the docker form only.
    """

    limits: TreeLimits = field(default_factory=TreeLimits)
    platform: str = field(default_factory=host_platform)

    async def fetch(self, uri: str, into: Path) -> FetchedArtifact:
        """Runs in a worker thread, and notices a cancellation within one chunk or entry."""
        return await to_thread.run_sync(self._fetch, uri, into)

    def _fetch(self, uri: str, into: Path) -> FetchedArtifact:
        path = Path(uri.removeprefix(SCHEME))
        if not path.is_absolute():
            raise ArtifactUnavailable(uri, f"{path} is no absolute path; write {SCHEME}/path/to/image.tar")
        with _open_regular(path, uri) as file:
            check = from_thread.check_cancelled
            archive = ImageArchive(file, os.fstat(file.fileno()).st_size, uri=uri, check_cancelled=check)
            image = archive.image(self.platform)
            if not image.layers:
                raise ArtifactInvalid(uri, "an image without layers")
            tree = TreeBuilder(into, uri, self.limits, check)
            for number, layer in enumerate(image.layers, start=1):
                apply_layer(
                    archive.open(layer.name),
                    tree,
                    digest=layer.digest,
                    diff_id=layer.diff_id,
                    what=f"layer {number} of {len(image.layers)}",
                    uri=uri,
                )
            tree.finish()
        return FetchedArtifact(digest=image.digest, size_bytes=tree.size_bytes)


def _open_regular(path: Path, uri: str) -> BinaryIO:
    try:
        # Without O_NONBLOCK a pipe of this name would hold the thread until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ArtifactUnavailable(uri, getattr(error, "strerror", None) or str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtifactUnavailable(uri, "it is no regular file")
    return os.fdopen(descriptor, "rb")
