"""One lock per key, kept only while somebody holds or awaits it."""

from collections.abc import AsyncIterator, Hashable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from anyio import Lock

K = TypeVar("K", bound=Hashable)


@dataclass
class _Entry:
    lock: Lock = field(default_factory=Lock)
    users: int = 0


@dataclass
class KeyedLocks(Generic[K]):
    """Locks that exclude each other only where their keys are equal; first come, first served."""

    _entries: dict[K, _Entry] = field(default_factory=dict)

    @asynccontextmanager
    async def hold(self, key: K) -> AsyncIterator[None]:
        """Hold the lock of `key`, waiting for whoever has it."""
        entry = self._entries.setdefault(key, _Entry())
        entry.users += 1
        try:
            async with entry.lock:
                yield
        finally:
            entry.users -= 1
            if entry.users == 0:
                del self._entries[key]

    @asynccontextmanager
    async def hold_all(self, keys: Iterable[K]) -> AsyncIterator[None]:
        """Hold the locks of all `keys`, taken in the order of their texts: nobody waits in a circle."""
        async with AsyncExitStack() as held:
            for key in sorted(set(keys), key=str):
                await held.enter_async_context(self.hold(key))
            yield

    def are_busy(self, keys: Iterable[K]) -> bool:
        """Whether somebody holds one of `keys`."""
        return any(key in self._entries for key in keys)

    def __len__(self) -> int:
        """How many keys are held or awaited right now."""
        return len(self._entries)
