"""Gallery indexes in local files: `file://<path>`."""

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from ...domain.errors import ArtifactInvalid, ArtifactUnavailable

SCHEME = "file://"


@dataclass(frozen=True)
class FileGalleryIndexes:
    """A `GalleryIndexSource` for YAML files strictly below the trusted root.

    Source: LocalAI pkg/downloader/uri.go, the file scheme; core/gallery/gallery.go.
    """

    limit_bytes: int = 64 << 20  # the official index has 0.6 MB

    async def read(self, url: str, *, trusted_root: Path) -> Sequence[Mapping[str, object]]:
        return await to_thread.run_sync(self._read, url, trusted_root)

    def _read(self, url: str, trusted_root: Path) -> Sequence[Mapping[str, object]]:
        content = self._content(url, Path(url.removeprefix(SCHEME)), trusted_root)
        return parse_index(content, url=url)

    def _content(self, url: str, path: Path, trusted_root: Path) -> bytes:
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
                content = file.read(self.limit_bytes + 1)
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links; ValueError: NUL
            raise ArtifactUnavailable(url, getattr(error, "strerror", None) or str(error)) from error
        if len(content) > self.limit_bytes:
            raise ArtifactInvalid(url, f"larger than {self.limit_bytes} bytes")
        return content


def parse_index(content: bytes, *, url: str) -> Sequence[Mapping[str, object]]:
    """The entries of an index, in order; scalars as the text they were written as, null as "".

    Raises:
        ArtifactInvalid: it is not one YAML list of mappings.
    """
    from .yaml_text import parse_yaml  # late: a worker that reads no gallery need not load PyYAML

    document = parse_yaml(content, uri=url)
    if not isinstance(document, list):
        raise ArtifactInvalid(url, "a gallery index is a YAML list of entries, this is none")
    entries: list[Mapping[str, object]] = []
    for number, entry in enumerate(document, start=1):
        if not isinstance(entry, dict):
            raise ArtifactInvalid(url, f"entry {number} is no mapping")
        entries.append(entry)
    return entries
