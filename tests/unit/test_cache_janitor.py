"""What the worker clears away by itself, and what it never touches."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.object_store import InMemoryObjectStore
from localai_worker.adapters.memory.open_files import InMemoryOpenFiles
from localai_worker.adapters.memory.ranged_files import InMemoryRangedFiles
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.cache_directory import CacheDirectory
from localai_worker.domain.cache_janitor import CacheJanitor
from localai_worker.domain.cache_records import CacheRecords
from localai_worker.domain.object_cache import ObjectCache
from localai_worker.domain.store_health import StoreHealth
from localai_worker.domain.vram_budget import VramBudget

ROOT = Path("/node/cache")
HOUR = timedelta(hours=1)


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@dataclass
class HandClock:
    time: datetime = datetime(1970, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


@dataclass
class Node:
    """A cache whose files the test writes; in memory, files are written in the first second of 1970."""

    disk: InMemoryFileSystem = field(default_factory=InMemoryFileSystem)
    store: InMemoryObjectStore = field(default_factory=InMemoryObjectStore)
    clock: HandClock = field(default_factory=HandClock)
    opened: InMemoryOpenFiles = field(default_factory=InMemoryOpenFiles)
    running: set[str] = field(default_factory=set)

    @asynccontextmanager
    async def live(self, limit_bytes: int | None = None) -> AsyncIterator[tuple[ObjectCache, CacheJanitor]]:
        records = CacheRecords(self.disk, Path("/node/state"))
        directory = CacheDirectory(self.disk, records, self.clock, ROOT)
        budget = VramBudget(size_bytes=limit_bytes)
        janitor = CacheJanitor(directory, lambda: self.running, self.opened, budget)
        ranged = InMemoryRangedFiles(self.disk)
        cache = ObjectCache(self.store, ranged, directory, janitor, StoreHealth(self.store))
        async with cache.running():
            yield cache, janitor

    def put(self, name: str, size_bytes: int = 1) -> None:
        self.disk.put(ROOT / name, b"x" * size_bytes)

    @property
    def names(self) -> set[str]:
        return {str(path.relative_to(ROOT)) for path in self.disk.files(ROOT)}


async def test_inputs_of_single_requests_go_after_an_hour_with_their_directories() -> None:
    """S-K11: nothing ever removes them."""
    node = Node()
    node.put("ephemeral/inputs/1a2b3c4d/image.png")
    async with node.live() as (_, janitor):
        node.clock.time += HOUR / 2
        await janitor.sweep()
        assert node.names == {"ephemeral/inputs/1a2b3c4d/image.png"}
        node.clock.time += HOUR
        await janitor.sweep()
        assert node.names == set()
        assert [entry.name for entry in await node.disk.list_directory(ROOT / "ephemeral")] == ["inputs"] or (
            await node.disk.list_directory(ROOT / "ephemeral") == ()
        )


async def test_temporaries_and_what_is_left_of_downloads_go_after_a_day() -> None:
    """S-K11, N-B22: `staging-tmp` and partial downloads stay for ever."""
    node = Node()
    node.put("staging-tmp/localai-staging-1.tmp")
    node.put("models/phi/.phi.gguf.0123456789abcdef.ranges.incoming")
    async with node.live() as (_, janitor):
        node.clock.time += 23 * HOUR
        await janitor.sweep()
        assert len(node.names) == 2
        node.clock.time += 2 * HOUR
        await janitor.sweep()
    assert node.names == set()


async def test_model_files_stay_while_there_is_room() -> None:
    node = Node()
    node.put("models/phi/phi.gguf", 1000)
    node.put("gallery/index.yaml")
    async with node.live() as (_, janitor):
        node.clock.time += 10_000 * HOUR
        await janitor.sweep()
    assert node.names == {"models/phi/phi.gguf", "gallery/index.yaml"}


async def test_beyond_the_limit_the_least_recently_used_go_first() -> None:
    """S-K11: caches grow without bound."""
    node = Node()
    async with node.live(limit_bytes=250) as (cache, janitor):
        for name in ("old", "older", "new"):
            node.store.store(f"models/{name}", b"x" * 100)
        for hours, name in enumerate(("older", "old", "new", "older")):
            node.clock.time = datetime(2026, 1, 1, hours, tzinfo=UTC)
            await cache.ensure(f"models/{name}")
        node.clock.time += 2 * HOUR
        await janitor.sweep()
        assert node.names == {"models/older", "models/new"}  # `older` was asked for again
        assert cache.directory.records.get("models/old") is None


async def test_files_in_use_are_never_removed(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    for name in ("models/running/w", "models/mapped/w", "models/idle/w"):
        node.put(name, 100)
    node.put("ephemeral/inputs/x/read.png")
    node.running.add("running")
    node.opened.opened |= {ROOT / "models/mapped/w", ROOT / "ephemeral/inputs/x/read.png"}
    async with node.live(limit_bytes=50) as (_, janitor):
        node.clock.time += 3 * HOUR
        with caplog.at_level(logging.WARNING):
            await janitor.sweep()
    assert node.names == {"models/running/w", "models/mapped/w", "ephemeral/inputs/x/read.png"}
    assert "its limit is 50: the rest is in use" in caplog.text


async def test_a_file_just_asked_for_rests_before_it_may_go() -> None:
    node = Node()
    async with node.live(limit_bytes=1) as (cache, janitor):
        node.store.store("models/fresh", b"x" * 100)
        await cache.ensure("models/fresh")
        node.clock.time += HOUR / 2
        await janitor.sweep()
        assert node.names == {"models/fresh"}


async def test_a_nearly_full_disk_counts_as_a_limit() -> None:
    node = Node()
    node.put("models/a", 100)
    node.put("models/b", 100)
    node.disk.put(Path("/else/where"), b"x" * 790)
    node.disk.capacity_bytes = 1000
    async with node.live() as (_, janitor):
        node.clock.time += 3 * HOUR
        await janitor.sweep()
    assert node.names == set()


async def test_records_of_files_that_are_gone_are_dropped() -> None:
    node = Node()
    async with node.live() as (cache, janitor):
        node.store.store("models/x", b"x")
        await cache.ensure("models/x")
        await node.disk.remove_tree(ROOT / "models/x")
        await janitor.sweep()
        assert cache.directory.records.names() == ()


async def test_what_cannot_be_removed_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    node.put("staging-tmp/stuck")
    node.disk.chmod(ROOT / "staging-tmp", 0o555)
    async with node.live() as (_, janitor):
        node.clock.time += 48 * HOUR
        await janitor.sweep()
        assert "cached file not removed" in caplog.text
        node.disk.chmod(ROOT / "staging-tmp", 0o755)
        await janitor.sweep()
    assert node.names == set()
