"""Blobs addressed by staging key, shared by the frontend and every node."""

from dataclasses import dataclass
from typing import NewType, Protocol

from .ranged_files import AssembledFile, SourceFile

StagingKey = NewType("StagingKey", str)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Which version of an object is stored.

    `etag` is opaque but for hashes that can be told from it (see `object_checks`), without quotes.
    `modified_s` is the time of its last change, in whole seconds since 1970. `sha256` comes from the object's
    metadata.
    """

    size_bytes: int
    etag: str
    modified_s: int
    sha256: str = ""
    etag_is_hash: bool = False  # the store makes ETags of content hashes, and this one is not encrypted

    @property
    def version(self) -> str:
        """One line that names these bytes, and no others of the same key."""
        return f"{self.etag} {self.size_bytes}" + ("" if self.etag_is_hash else f" {self.modified_s}")


class StoredObject(Protocol):
    """One version of an object, about to be read."""

    @property
    def info(self) -> ObjectInfo:
        """What is being read."""

    @property
    def whole(self) -> bytes | None:
        """All bytes of a small object, where they came with its opening; else None."""

    async def copy_to(self, target: AssembledFile) -> None:
        """Write whatever `target` lacks; several ranges at once where that is faster.

        Cancelled, it stops soon and what was written stays written.

        Raises:
            ObjectChanged: the store holds another version by now.
            ObjectMissing: it was deleted meanwhile.
            ObjectInvalid: the object is not as long as it was said to be.
            StoreUnavailable, StoreRefused: it broke off, also after retries.
            NoSpace, FileUnwritable: `target` takes no more.
        """

    async def close(self) -> None:
        """Let go of connections; idempotent."""


class ObjectStore(Protocol):
    """Blobs addressed by staging key.

    A put is atomic: who reads at the same time has the old object or the whole new one, never a mix. Every
    operation may raise StoreUnavailable (unreachable, retries included; trying again is safe), StoreRefused
    (the text names the setting to look at) and ObjectInvalid (for a key it cannot store). Every wait has a
    bound.
    """

    async def head(self, key: StagingKey) -> ObjectInfo:
        """Which version is stored, by one request.

        Raises:
            ObjectMissing: nothing is stored under `key`.
        """

    async def open(self, key: StagingKey, known: ObjectInfo | None = None) -> StoredObject:
        """Begin to read an object; the caller closes it. With `known`, that version and no other will be
        read.

        Raises:
            ObjectMissing: nothing is stored under `key`.
        """

    async def part_size_bytes(self, key: StagingKey, info: ObjectInfo, parts: int) -> int | None:
        """The size of each part but the last of an object uploaded in `parts`; None where nobody can tell."""

    async def put(self, key: StagingKey, source: SourceFile) -> None:
        """Store the content of `source`.

        Raises:
            FileUnreadable: `source` became shorter; nothing is stored.
        """

    async def delete(self, key: StagingKey) -> None:
        """Remove the object; a missing one is fine."""

    async def list_keys(self, prefix: str) -> tuple[StagingKey, ...]:
        """Every key that begins with `prefix`, in order of code points."""

    async def check(self) -> None:
        """Return when the store answers and its container (bucket, directory) is there and ours to use."""

    async def close(self) -> None:
        """Let go of connections; idempotent."""
