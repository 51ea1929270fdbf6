"""How much one artifact may unpack to."""

from collections.abc import Callable
from dataclasses import dataclass

from ...domain.errors import ArtifactInvalid
from .blobs.room import Room


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """How large one artifact may grow: unpacked bytes of all layers together, and entries of any kind.

    The defaults hold the largest published GPU backends several times over.
    """

    total_bytes: int = 64 * 2**30
    entries: int = 1_000_000


@dataclass(slots=True)
class Allowance:
    """What one artifact, `uri` in messages, has used of `limits`; after a cancellation nothing is granted.

    Raises:
        ArtifactInvalid: a limit is passed.
        NoSpace: the disk has less than `room` wants to be left.
    """

    limits: TreeLimits
    uri: str
    check_cancelled: Callable[[], None]
    room: Room | None = None
    entries: int = 0
    size_bytes: int = 0

    def take_entry(self) -> None:
        """One more entry begins."""
        self.check_cancelled()
        self.entries += 1
        if self.entries > self.limits.entries:
            reason = f"more than {self.limits.entries} entries, which no backend has"
            raise ArtifactInvalid(self.uri, reason)

    def take_bytes(self, size_bytes: int) -> None:
        """So many more bytes are about to be written."""
        self.check_cancelled()
        self.size_bytes += size_bytes
        if self.size_bytes > self.limits.total_bytes:
            reason = f"it unpacks to more than {self.limits.total_bytes} bytes; raise the limit if intended"
            raise ArtifactInvalid(self.uri, reason)
        if self.room is not None:
            self.room.wrote(size_bytes)
