"""Payloads in memory, for tests of code that installs backends and for the simulator."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anyio import sleep

from ...domain.errors import ArtifactInvalid, ArtifactUnavailable, UnsupportedSource
from ...domain.ports.artifacts import FetchedArtifact
from ...domain.ports.filesystem import FileSystem

_OFFLINE = "the in-memory source is set offline"


@dataclass
class InMemoryArtifacts:
    """An `ArtifactSource` that writes trees of files through `filesystem`, every file executable.

    `trees` is by uri, then by path relative to the artifact. A uri in `broken` gives only the first half
    of its files. Uris of a kind that no tree has (`oci://`, `/`) are unsupported, not missing. Every
    payload takes `delay_s` seconds.
    """

    filesystem: FileSystem
    trees: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    offline: bool = False
    delay_s: float = 0.0

    async def fetch(self, uri: str, into: Path) -> FetchedArtifact:
        await sleep(self.delay_s)
        if self.offline:
            raise ArtifactUnavailable(uri, _OFFLINE)
        if uri not in self.trees:
            raise _absent(uri, self.trees)
        files = sorted(self.trees[uri].items())
        if uri in self.broken:
            files = files[: len(files) // 2]
        digest = hashlib.sha256()
        for name, content in files:
            path = into / name
            await self.filesystem.make_directory(path.parent, mode=0o755)
            await self.filesystem.write(path, content, mode=0o755)
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        if uri in self.broken:
            raise ArtifactInvalid(uri, "it is set broken")
        size_bytes = sum(len(content) for _, content in files)
        return FetchedArtifact(digest=f"sha256:{digest.hexdigest()}", size_bytes=size_bytes)


def _absent(uri: str, stored: Iterable[str]) -> ArtifactUnavailable | UnsupportedSource:
    kinds = sorted({_kind_of(known) for known in stored})
    if _kind_of(uri) not in kinds:
        return UnsupportedSource(uri, supported=tuple(kinds))
    return ArtifactUnavailable(uri, "nothing is stored under it")


def _kind_of(uri: str) -> str:
    """What tells one reader's uris from another's: the scheme, or the first part of a path."""
    scheme, separator, _ = uri.partition("://")
    return scheme + separator if separator else uri.partition("/")[0] + "/"
