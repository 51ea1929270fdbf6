"""Gallery documents in local files: `file://<path>`."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from ...domain.errors import ArtifactInvalid, ArtifactUnavailable
from ...domain.ports.galleries import GalleryDocument

SCHEME = "file://"
LARGEST_BYTES = 64 << 20  # the official index has 0.6 MB


@dataclass(frozen=True)
class FileDocuments:
    """Fetches files strictly below the trusted root; the version of one is its place, size and time.

    Source: LocalAI pkg/downloader/uri.go, the file scheme; core/gallery/gallery.go.
    """

    limit_bytes: int = LARGEST_BYTES

    async def fetch(self, url: str, *, trusted_root: Path, known: str = "") -> GalleryDocument | None:
        return await to_thread.run_sync(self._fetch, url, trusted_root, known)

    def _fetch(self, url: str, trusted_root: Path, known: str) -> GalleryDocument | None:
        path = Path(url.removeprefix(SCHEME))
        if not path.is_absolute():
            raise ArtifactUnavailable(url, f"{path} is no absolute path; write {SCHEME}/path/to/index.yaml")
        try:
            # Not strictly: before the first install there is no trusted root, and outside of it is outside.
            resolved, root = path.resolve(), trusted_root.resolve()
            if root not in resolved.parents:
                raise ArtifactUnavailable(url, f"path is outside of trusted root {trusted_root}")
            if not stat.S_ISREG(resolved.stat().st_mode):
                raise ArtifactUnavailable(url, "it is no regular file")
            with resolved.open("rb") as file:
                info = os.fstat(file.fileno())
                version = f"{info.st_dev}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}"
                if version == known:
                    return None
                content = file.read(self.limit_bytes + 1)
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links; ValueError: NUL
            raise ArtifactUnavailable(url, getattr(error, "strerror", None) or str(error)) from error
        if len(content) > self.limit_bytes:
            raise ArtifactInvalid(url, f"larger than {self.limit_bytes} bytes")
        return GalleryDocument(content, version)
