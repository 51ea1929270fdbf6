"""A hub of models: repositories of files, in versions."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of a repository, as the hub tells it: nothing of it is to be trusted.

    `blob_id` is Git's hash of the content, or of what stands for it where `lfs_sha256` (of the content) is
    given. `xet_hash`: the hub's own name for the content. "" where the hub tells none.
    """

    path: str
    size_bytes: int
    blob_id: str = ""
    lfs_sha256: str = ""
    xet_hash: str = ""


class ModelHub(Protocol):
    """Looks into repositories (`owner/name`).

    A `token` ("": none) opens what is closed without it. It is shown to the hub alone.
    """

    @property
    def endpoint(self) -> str:
        """The url below which the hub answers; no slash at its end."""

    async def commit(self, repository: str, revision: str, *, token: str = "") -> str:
        """The version that `revision` (a branch, a tag, a version) stands for now: 40 lower-case hex digits.

        Raises:
            ArtifactMissing: there is no such repository or revision.
            DownloadRefused: not for us, or not with this token.
            ArtifactUnavailable: the hub cannot be reached, or has trouble of its own.
            ArtifactInvalid: its answer makes no sense.
        """

    async def files(self, repository: str, commit: str, *, most: int, token: str = "") -> tuple[HubFile, ...]:
        """All files of a version, in the hub's order.

        Raises:
            ArtifactInvalid: the answer makes no sense, leads to another host, or has more than `most`
                entries.
            ArtifactMissing, DownloadRefused, ArtifactUnavailable: as `commit`.
        """
