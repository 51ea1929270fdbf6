"""Attachments of images, looked for by an adapter that is loaded when the first is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...domain.ports.artifacts import AttachedArtifact, ImageAttachments


@dataclass(frozen=True)
class LateAttachments:
    """An `ImageAttachments` that makes the real one when it is needed."""

    make: Callable[[], ImageAttachments]

    async def attached(self, uri: str, digest: str, *, artifact_type: str) -> Sequence[AttachedArtifact]:
        return await self.make().attached(uri, digest, artifact_type=artifact_type)
