"""An object store in memory: really stores, really fails."""

import hashlib
from dataclasses import dataclass, field

import anyio
from anyio.lowlevel import checkpoint

from ...domain.ports.object_store import ObjectInfo, StagingKey
from ...domain.ports.ranged_files import AssembledFile, SourceFile
from ...domain.store_errors import ObjectChanged, ObjectInvalid, ObjectMissing, StoreUnavailable

LONGEST_KEY_BYTES = 1024  # as S3


@dataclass(frozen=True)
class _Object:
    content: bytes
    info: ObjectInfo


class InMemoryStoredObject:
    """A `StoredObject` of an `InMemoryObjectStore`."""

    def __init__(
        self, store: "InMemoryObjectStore", key: StagingKey, info: ObjectInfo, whole: bytes | None
    ) -> None:
        self.info, self.whole = info, whole
        self._store, self._key = store, key

    async def copy_to(self, target: AssembledFile) -> None:
        operation, block_bytes = f"getting object {self._key}", self._store.block_bytes
        for gap in target.missing:
            for at in range(gap.start, gap.stop, block_bytes):
                await self._store.breathe(operation)
                now = self._store.found(self._key, operation)
                if now.info.version != self.info.version:
                    raise ObjectChanged(self._key)
                if len(now.content) != self.info.size_bytes:
                    said = f"{self.info.size_bytes} bytes were announced, it has {len(now.content)}"
                    raise ObjectInvalid(operation, said)
                target.write_at(at, memoryview(now.content)[at : min(at + block_bytes, gap.stop)])

    async def close(self) -> None:
        await checkpoint()


@dataclass
class InMemoryObjectStore:
    """Objects by key.

    `offline`: a test pulls the plug here; `block_s`: how long `block_bytes` take; `whole_bytes`: objects of
    up to this size come with their opening.
    """

    objects: dict[StagingKey, _Object] = field(default_factory=dict)
    offline: bool = False
    block_s: float = 0.0
    block_bytes: int = 64 * 1024
    whole_bytes: int = 0
    _changes: int = 0

    # For tests: set the scene.

    def store(self, key: str, content: bytes, *, sha256: str = "") -> None:
        """Put an object at once; `sha256` is what its metadata claim."""
        self._changes += 1
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        info = ObjectInfo(len(content), etag, self._changes, sha256, etag_is_hash=True)
        self.objects[StagingKey(key)] = _Object(content, info)

    def content(self, key: str) -> bytes:
        """What is stored under `key`, which is there."""
        return self.objects[StagingKey(key)].content

    # The port.

    async def head(self, key: StagingKey) -> ObjectInfo:
        await self.breathe(f"head {key}")
        return self.found(key, f"head {key}").info

    async def open(self, key: StagingKey, known: ObjectInfo | None = None) -> InMemoryStoredObject:
        await self.breathe(f"getting object {key}")
        if known is not None:
            return InMemoryStoredObject(self, key, known, None)
        stored = self.found(key, f"getting object {key}")
        whole = stored.content if stored.info.size_bytes <= self.whole_bytes else None
        return InMemoryStoredObject(self, key, stored.info, whole)

    async def part_size_bytes(self, key: StagingKey, info: ObjectInfo, parts: int) -> int | None:
        await self.breathe(f"head {key}")
        return info.size_bytes if parts == 1 else None

    async def put(self, key: StagingKey, source: SourceFile) -> None:
        operation = f"putting object {key}"
        await self.breathe(operation)
        _require_key(key, operation)
        self.store(key, source.read_at(0, source.size_bytes))

    async def delete(self, key: StagingKey) -> None:
        await self.breathe(f"deleting object {key}")
        self.objects.pop(key, None)

    async def list_keys(self, prefix: str) -> tuple[StagingKey, ...]:
        await self.breathe(f"listing objects with prefix {prefix}")
        return tuple(sorted(key for key in self.objects if key.startswith(prefix)))

    async def check(self) -> None:
        await self.breathe("looking at the object store")

    async def close(self) -> None:
        await checkpoint()

    async def breathe(self, operation: str) -> None:
        """Yield as the network would, so that a race can show itself in a test, and fail when offline."""
        await anyio.sleep(self.block_s)
        if self.offline:
            raise StoreUnavailable(operation, "the in-memory store is set offline")

    def found(self, key: StagingKey, operation: str) -> _Object:
        """The object.

        Raises:
            ObjectMissing, ObjectInvalid: nothing is stored under `key`, or nothing can be.
        """
        _require_key(key, operation)
        if key not in self.objects:
            raise ObjectMissing(operation, "the in-memory store")
        return self.objects[key]


def _require_key(key: str, operation: str) -> None:
    if not 0 < len(key.encode("utf-8", "replace")) <= LONGEST_KEY_BYTES:
        raise ObjectInvalid(operation, f"a key has 1 to {LONGEST_KEY_BYTES} bytes")
