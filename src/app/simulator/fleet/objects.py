"""The object store of a fleet: what it held and when, and days on which it is slow, away, or tells lies."""

import hashlib
from collections import deque
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import anyio

from ....adapters.memory.object_store import InMemoryObjectStore
from ....domain.cache_janitor import EPHEMERAL
from ....domain.ports.object_store import StagingKey
from ....domain.store_errors import StoreUnavailable

BLOCK_BYTES = 60  # so that a model comes in several steps, and a kill can come between them
WHOLE_BYTES = 64  # inputs of requests come with their opening, models do not
_SLOW_S = (5.0, 240.0)
_QUICK_S = 0.05
_KEPT_S = 1200.0  # longer than any request waits
LIES = ("length", "etag", "bytes")


@dataclass(kw_only=True)
class FleetObjectStore(InMemoryObjectStore):
    """One store for all. `held` tells what was under a key at any moment; inputs and results are forgotten 20
    minutes after they were deleted.

    `slow` and `lies` (one of `LIES`, or nothing) are faults under way: the length it announces, its ETag or
    the bytes themselves are then wrong.
    """

    random: Random
    slow: bool = False
    lies: str = ""
    _held: dict[str, list[tuple[float, bytes | None]]] = field(default_factory=dict)
    _deleted: deque[tuple[float, str]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.block_bytes, self.whole_bytes = BLOCK_BYTES, WHOLE_BYTES

    def store(self, key: str, content: bytes, *, sha256: str = "") -> None:
        super().store(key, content, sha256=sha256)
        self._note(key, content)

    def remove(self, key: str) -> None:
        """Delete an object at once."""
        if self.objects.pop(StagingKey(key), None) is not None:
            self._note(key, None)
            if key.startswith(EPHEMERAL):
                self._deleted.append((anyio.current_time(), key))

    async def delete(self, key: StagingKey) -> None:
        await self.breathe(f"deleting object {key}")
        self.remove(key)

    async def breathe(self, operation: str) -> None:
        low_s, high_s = _SLOW_S if self.slow else (0.0, _QUICK_S)
        await anyio.sleep(self.random.uniform(low_s, high_s))
        if self.offline:
            raise StoreUnavailable(operation, "the object store of the fleet is away")

    def found(self, key: StagingKey, operation: str) -> Any:
        found = super().found(key, operation)
        if self.lies == "length":
            return replace(found, info=replace(found.info, size_bytes=found.info.size_bytes + 7))
        if self.lies == "etag":
            etag = hashlib.md5(found.info.etag.encode(), usedforsecurity=False).hexdigest()
            return replace(found, info=replace(found.info, etag=etag))
        if self.lies == "bytes":
            return replace(found, content=found.content[::-1])
        return found

    def held(self, key: str, since_s: float) -> list[bytes]:
        """Everything that was stored under `key` at some moment from `since_s` until now."""
        contents: list[bytes] = []
        for at_s, content in reversed(self._held.get(key, ())):
            if content is not None:
                contents.append(content)
            if at_s < since_s:
                break
        return contents

    def _note(self, key: str, content: bytes | None) -> None:
        now_s = anyio.current_time()
        self._held.setdefault(key, []).append((now_s, content))
        while self._deleted and self._deleted[0][0] < now_s - _KEPT_S:
            _, gone = self._deleted.popleft()
            if gone in self._held and gone not in self.objects:
                del self._held[gone]
