"""From a snapshot that is wanted to a version of a repository and the files of it."""

import re
from dataclasses import dataclass, replace
from functools import partial

import anyio

from .attempts import in_attempts
from .errors import ArtifactUnavailable, DownloadRefused
from .hub_files import MOST_FILES, choose_files
from .ports.model_hub import HubFile, ModelHub
from .snapshot_spec import MODEL, TOKEN_VARIABLE, InvalidSnapshotSpec, SnapshotSpec

_ENDPOINT = re.compile(r"https?://[^/?#@\s]+(?:/[^?#@\s]*)?")
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass
class ResolveSnapshot:
    """Asks `hub` what a wanted snapshot is made of; `token` is the one that entries may name.

    Source: LocalAI pkg/huggingface-api/snapshot.go. A prefetching upstream worker has no token at all.
    """

    hub: ModelHub
    token: str = ""
    attempts: int = 3
    first_wait_s: float = 2.0
    listing_s: float = 600.0

    def token_for(self, spec: SnapshotSpec) -> str:
        """The token that `spec` names; "" where it names none.

        Raises:
            DownloadRefused: there is no such token here.
        """
        if not spec.token_variable:
            return ""
        if not _TOKEN.fullmatch(self.token):
            why = "is not set" if not self.token else "holds characters that no token has"
            reason = f"it wants the token in {TOKEN_VARIABLE}, which {why}"
            raise DownloadRefused(spec.repository, reason)
        return self.token

    async def resolve(self, spec: SnapshotSpec) -> tuple[SnapshotSpec, tuple[HubFile, ...]]:
        """`spec` with the version it stands for now, and its files in the order of their paths.

        Raises:
            InvalidSnapshotSpec: it was resolved at another hub, or this one's url is none.
            ArtifactMissing, DownloadRefused, ArtifactUnavailable, ArtifactInvalid: see `ModelHub`.
        """
        self._check_endpoint(spec)
        token = self.token_for(spec)
        found = None
        with anyio.move_on_after(self.listing_s):
            found = await in_attempts(
                partial(self._ask, spec, token), attempts=self.attempts, first_wait_s=self.first_wait_s
            )
        if found is None:
            reason = f"the hub did not list its files within {self.listing_s:g} s"
            raise ArtifactUnavailable(spec.repository, reason)
        return found

    async def _ask(self, spec: SnapshotSpec, token: str) -> tuple[SnapshotSpec, tuple[HubFile, ...]]:
        pinned = spec.resolved.revision if spec.resolved is not None else ""
        commit = pinned or await self.hub.commit(spec.repository, spec.revision, token=token)
        listed = await self.hub.files(spec.repository, commit, most=MOST_FILES, token=token)
        files = choose_files(spec, listed)
        found = spec.found_at(self.hub.endpoint, commit)
        if len(files) == 1 and spec.target == MODEL and found.resolved is not None:
            found = replace(found, resolved=replace(found.resolved, primary_file=files[0].path))
        return found, files

    def _check_endpoint(self, spec: SnapshotSpec) -> None:
        endpoint = self.hub.endpoint
        if not _ENDPOINT.fullmatch(endpoint):
            wanted = "want http(s)://<host>[/<path>], without a password: it is written down with the model"
            raise InvalidSnapshotSpec(f"HF_ENDPOINT (or HF_MIRROR, HF) is no plain url; {wanted}")
        if spec.resolved is not None and spec.resolved.endpoint != endpoint:
            asked = f"{spec.resolved.endpoint!r}, and this node asks {endpoint!r} (HF_ENDPOINT)"
            raise InvalidSnapshotSpec(f"{spec.repository} was resolved at {asked}")
