"""A hub of models in memory, for tests of code that fetches repositories."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from anyio.lowlevel import checkpoint

from ...domain.errors import ArtifactInvalid, ArtifactMissing, ArtifactUnavailable, DownloadRefused
from ...domain.git_blob import git_blob
from ...domain.hub_files import file_url
from ...domain.ports.model_hub import HubFile
from .downloads import InMemoryDownloads


@dataclass
class InMemoryModelHub:
    """A `ModelHub` whose files can be fetched through `downloads`; remembers what was `asked`.

    `closed`: repositories by the token that opens them.
    """

    downloads: InMemoryDownloads
    endpoint: str = "https://huggingface.co"
    offline: bool = False
    closed: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    _commits: dict[tuple[str, str], str] = field(default_factory=dict)
    _files: dict[tuple[str, str], tuple[HubFile, ...]] = field(default_factory=dict)

    def publish(
        self,
        repository: str,
        files: Mapping[str, bytes],
        *,
        revision: str = "main",
        large: Collection[str] = (),
    ) -> str:
        """Make `revision` stand for a version with these files, the `large` ones kept by LFS; its name."""
        listed = tuple(_listed(path, content, large=path in large) for path, content in files.items())
        commit = hashlib.sha1(repr((repository, listed)).encode(), usedforsecurity=False).hexdigest()
        self._commits[repository, revision] = self._commits[repository, commit] = commit
        self.list_files(repository, commit, listed)
        for path, content in files.items():
            url = file_url(self.endpoint, repository, commit, path)
            self.downloads.files[url] = content
            if repository in self.closed:
                self.downloads.closed[url] = self.closed[repository]
        return commit

    def list_files(self, repository: str, commit: str, files: tuple[HubFile, ...]) -> None:
        """Let a version have these files, whatever can be fetched."""
        self._files[repository, commit] = files

    def listed(self, repository: str, commit: str) -> tuple[HubFile, ...]:
        """What a version has."""
        return self._files[repository, commit]

    async def commit(self, repository: str, revision: str, *, token: str = "") -> str:
        await self._enter(f"{repository}@{revision}", repository, token)
        if (repository, revision) not in self._commits:
            raise ArtifactMissing(repository, f"no revision {revision}")
        return self._commits[repository, revision]

    async def files(self, repository: str, commit: str, *, most: int, token: str = "") -> tuple[HubFile, ...]:
        await self._enter(f"{repository}@{commit}/", repository, token)
        if (repository, commit) not in self._files:
            raise ArtifactMissing(repository, f"no version {commit}")
        found = self._files[repository, commit]
        if len(found) > most:
            raise ArtifactInvalid(repository, f"it has more than {most} files and directories")
        return found

    async def _enter(self, asked: str, repository: str, token: str) -> None:
        await checkpoint()
        self.asked.append(asked)
        if self.offline:
            raise ArtifactUnavailable(repository, "the in-memory hub is set offline")
        if self.closed.get(repository, token) != token:
            raise DownloadRefused(repository, "closed; set HF_TOKEN")


def _listed(path: str, content: bytes, *, large: bool) -> HubFile:
    blob = git_blob(len(content))
    blob.update(content)
    lfs_sha256 = hashlib.sha256(content).hexdigest() if large else ""
    return HubFile(path=path, size_bytes=len(content), blob_id=blob.hexdigest(), lfs_sha256=lfs_sha256)
