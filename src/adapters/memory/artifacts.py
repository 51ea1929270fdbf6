"""Payloads in memory, for tests of code that installs backends and for the simulator."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anyio import sleep
from anyio.lowlevel import checkpoint

from ...domain.errors import ArtifactInvalid, ArtifactMissing, ArtifactUnavailable, UnsupportedSource
from ...domain.ports.artifacts import (
    OLD_SIGNATURE,
    Approve,
    ArtifactEstimate,
    AttachedArtifact,
    FetchedArtifact,
    FetchPhase,
    FetchProgress,
    Report,
    approve_any,
    unreported,
)
from ...domain.ports.filesystem import FileSystem

_OFFLINE = "the in-memory source is set offline"


@dataclass
class InMemoryArtifacts:
    """An `ArtifactSource` that writes trees of files through `filesystem`, every file executable.

    `trees` is by uri, then by path relative to the artifact. A uri in `broken` gives only the first half
    of its files, one in `archives` is compared with the hash it should have, all others pass for images.
    Uris of a kind that no tree has (`oci://`, `/`) are unsupported, not missing. Every payload takes
    `delay_s` seconds.
    """

    filesystem: FileSystem
    trees: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    archives: set[str] = field(default_factory=set)
    offline: bool = False
    delay_s: float = 0.0

    async def fetch(
        self,
        uri: str,
        into: Path,
        *,
        sha256: str = "",
        approve: Approve = approve_any,
        report: Report = unreported,
    ) -> FetchedArtifact:
        report(FetchProgress(FetchPhase.RESOLVING))
        files = self._files(uri)
        estimate = self._estimate(files)
        if sha256 and estimate.digest != f"sha256:{sha256.lower()}" and uri in self.archives:
            raise ArtifactInvalid(uri, f"it is {estimate.digest}, should be sha256:{sha256.lower()}")
        if uri not in self.archives:
            await approve(estimate.digest)
        done_bytes, total_bytes = 0, estimate.disk_bytes
        report(FetchProgress(FetchPhase.DOWNLOADING, 0, total_bytes))
        await sleep(self.delay_s)
        for name, content in files[: len(files) // 2] if uri in self.broken else files:
            path = into / name
            await self.filesystem.make_directory(path.parent, mode=0o755)
            await self.filesystem.write(path, content, mode=0o755)
            done_bytes += len(content)
            report(FetchProgress(FetchPhase.DOWNLOADING, done_bytes, total_bytes))
        if uri in self.broken:
            raise ArtifactInvalid(uri, "it is set broken")
        report(FetchProgress(FetchPhase.EXTRACTING, total_bytes, total_bytes))
        return FetchedArtifact(estimate.digest, size_bytes=total_bytes, downloaded_bytes=total_bytes)

    async def describe(self, uri: str) -> ArtifactEstimate:
        await checkpoint()
        return self._estimate(self._files(uri))

    def _files(self, uri: str) -> list[tuple[str, bytes]]:
        if self.offline:
            raise ArtifactUnavailable(uri, _OFFLINE)
        if uri not in self.trees:
            raise _absent(uri, self.trees)
        return sorted(self.trees[uri].items())

    def _estimate(self, files: Iterable[tuple[str, bytes]]) -> ArtifactEstimate:
        digest, size_bytes = hashlib.sha256(), 0
        for name, content in files:
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
            size_bytes += len(content)
        return ArtifactEstimate(f"sha256:{digest.hexdigest()}", size_bytes, size_bytes)


@dataclass
class InMemoryAttachments:
    """An `ImageAttachments` of what a test attaches, by image uri and digest."""

    stored: dict[tuple[str, str], list[AttachedArtifact]] = field(default_factory=dict)
    offline: bool = False

    async def attached(self, uri: str, digest: str, *, artifact_type: str) -> Sequence[AttachedArtifact]:
        await checkpoint()
        if self.offline:
            raise ArtifactUnavailable(uri, _OFFLINE)
        found = self.stored.get((uri, digest), [])
        return [
            each
            for each in found
            if each.artifact_type.startswith(artifact_type)
            and (each.artifact_type == OLD_SIGNATURE) == (artifact_type == OLD_SIGNATURE)
        ]


def _absent(uri: str, stored: Iterable[str]) -> ArtifactMissing | UnsupportedSource:
    kinds = sorted({_kind_of(known) for known in stored})
    if _kind_of(uri) not in kinds:
        return UnsupportedSource(uri, supported=tuple(kinds))
    return ArtifactMissing(uri, "nothing is stored under it")


def _kind_of(uri: str) -> str:
    """What tells one reader's uris from another's: the scheme, or the first part of a path."""
    scheme, separator, _ = uri.partition("://")
    return scheme + separator if separator else uri.partition("/")[0] + "/"
