"""The object cache over the in-memory store: fresh, shared, whole, resumed."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import anyio
import pytest

from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.loop_clock import LoopClock
from localai_worker.adapters.memory.object_store import InMemoryObjectStore, InMemoryStoredObject
from localai_worker.adapters.memory.open_files import InMemoryOpenFiles
from localai_worker.adapters.memory.ranged_files import InMemoryRangedFiles
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain import object_cache
from localai_worker.domain.cache_directory import CacheDirectory
from localai_worker.domain.cache_janitor import CacheJanitor
from localai_worker.domain.cache_records import FILE_NAME, CacheRecords
from localai_worker.domain.object_cache import DownloadFailed, ObjectCache, StillDownloading
from localai_worker.domain.ports.filesystem import RootedPath
from localai_worker.domain.ports.object_store import ObjectInfo, StagingKey
from localai_worker.domain.settle_files import SAVE_EVERY_S
from localai_worker.domain.store_health import StoreHealth

ROOT = Path("/node/cache")
KEY = "models/phi/phi-4.gguf"


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@dataclass
class CountingStore(InMemoryObjectStore):
    """A store that tells what it was asked."""

    asked: list[str] = field(default_factory=list)

    async def head(self, key: StagingKey) -> ObjectInfo:
        self.asked.append(f"HEAD {key}")
        return await super().head(key)

    async def open(self, key: StagingKey, known: ObjectInfo | None = None) -> InMemoryStoredObject:
        self.asked.append(f"GET {key}")
        return await super().open(key, known)


@dataclass
class Node:
    """A cache and all around it; `live` starts one life of it."""

    store: CountingStore = field(default_factory=CountingStore)
    disk: InMemoryFileSystem = field(default_factory=InMemoryFileSystem)

    def __post_init__(self) -> None:
        self.ranged = InMemoryRangedFiles(self.disk)

    @asynccontextmanager
    async def live(self, *, verify: bool = True) -> AsyncIterator[ObjectCache]:
        records = CacheRecords(self.disk, Path("/node/state"))
        directory = CacheDirectory(self.disk, records, LoopClock(), ROOT)
        janitor = CacheJanitor(directory, lambda: (), InMemoryOpenFiles())
        health = StoreHealth(self.store)
        cache = ObjectCache(self.store, self.ranged, directory, janitor, health, verify=verify)
        async with cache.running():
            yield cache

    def cached(self, key: str = KEY) -> bytes | None:
        return self.disk.get(ROOT / key)

    @property
    def hidden(self) -> list[str]:
        return [path.name for path in self.disk.files(ROOT) if path.name.startswith(".")]


@pytest.fixture
def node() -> Node:
    return Node()


async def test_a_small_object_that_comes_with_its_opening_is_the_same_to_the_cache(node: Node) -> None:
    """S-K05: small or not, a file is what the store says it is."""
    node.store.whole_bytes = 1000
    node.store.store(KEY, b"weights")
    async with node.live() as cache:
        assert await cache.ensure(KEY) == ROOT / KEY
        assert await cache.ensure(KEY) == ROOT / KEY
        assert node.store.asked == [f"GET {KEY}", f"HEAD {KEY}"]
        node.store.store(KEY, b"other weights")
        await cache.ensure(KEY)
    assert node.cached() == b"other weights"
    assert node.hidden == []


async def test_a_small_object_that_is_damaged_does_not_appear(node: Node) -> None:
    node.store.whole_bytes = 1000
    node.store.store(KEY, b"weights", sha256="0" * 64)
    async with node.live() as cache:
        with pytest.raises(DownloadFailed, match="sha256 mismatch"):
            await cache.ensure(KEY)
        assert node.cached() is None
        assert node.hidden == []
    async with node.live(verify=False) as cache:
        await cache.ensure(KEY)
    assert node.cached() == b"weights"


async def test_a_cache_at_rest_wakes_nobody(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks after the disk when something came or was used, not every few seconds for ever."""
    looks: list[float] = []
    honest = CacheRecords.save

    async def save(self: CacheRecords) -> None:
        looks.append(anyio.current_time())
        await honest(self)

    monkeypatch.setattr(CacheRecords, "save", save)
    node.store.store(KEY, b"weights")
    async with node.live() as cache:
        await anyio.sleep(3600)
        assert looks == []
        await cache.ensure(KEY)
        await anyio.sleep(3600)
        assert looks == [3600 + SAVE_EVERY_S]
        await cache.ensure(KEY)
        await anyio.sleep(3600)
        assert looks[1:] == [2 * 3600 + SAVE_EVERY_S]
    assert node.cached() == b"weights"


async def test_lost_records_cost_no_download(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.store.store(KEY, b"weights")
    async with node.live() as cache:
        await cache.ensure(KEY)
    node.store.asked.clear()
    for broken in (b"{", b"[]", b'{"format": 1, "files": {"x": {}}}', b'{"format": 99}'):
        node.disk.put(Path("/node/state") / FILE_NAME, broken)
        async with node.live() as cache:
            await cache.ensure(KEY)
    assert node.store.asked == [f"HEAD {KEY}"] * 4
    assert "are lost" in caplog.text


async def test_a_slow_download_is_answered_in_time_and_goes_on(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N-B22, S-1.5.4: there is no time limit, and the frontend waits ten minutes for nothing."""
    monkeypatch.setattr(object_cache, "ANSWER_S", 0.05)
    node.store.block_s = 0.02
    node.store.store(KEY, b"w" * 64 * 1024 * 8)
    async with node.live() as cache:
        with pytest.raises(StillDownloading, match=r"\d+ of 524288 bytes are here and it goes on; ask again"):
            await cache.ensure(KEY)
        with anyio.fail_after(10):
            while True:
                try:
                    await cache.ensure(KEY)
                except StillDownloading:
                    continue
                break
    assert node.store.asked.count(f"GET {KEY}") == 1


async def test_a_download_cut_by_the_end_of_the_worker_goes_on_in_the_next_life(node: Node) -> None:
    """S-K10: what a crash left of a download is overwritten from byte 0."""
    node.store.block_s = 0.01
    content = bytes(range(256)) * 256 * 8
    node.store.store(KEY, content)

    async with anyio.create_task_group() as tasks, node.live() as cache:

        async def ensure() -> None:
            with pytest.raises(DownloadFailed, match="this worker is shutting down"):
                await cache.ensure(KEY)

        tasks.start_soon(ensure)
        await anyio.sleep(0.045)
    assert node.cached() is None
    assert len(node.hidden) == 1
    file = await node.ranged.assemble(
        RootedPath(ROOT, PurePosixPath(KEY)),
        version=(await node.ranged.kept(RootedPath(ROOT, PurePosixPath(KEY)))) or "",
        size_bytes=len(content),
    )
    held = len(content) - sum(map(len, file.missing))
    assert held > 0
    await file.keep()
    node.store.asked.clear()
    async with node.live() as cache:
        began_s = anyio.current_time()
        await cache.ensure(KEY)
        blocks = round((anyio.current_time() - began_s) / node.store.block_s) - 1  # in virtual time
    assert blocks == (len(content) - held) // (64 * 1024)
    assert node.store.asked == [f"GET {KEY}"]
    assert node.cached() == content
    assert node.hidden == []


async def test_a_part_of_an_older_version_is_not_gone_on_with(node: Node) -> None:
    node.store.store(KEY, b"old content")
    info = node.store.objects[StagingKey(KEY)].info
    place = RootedPath(ROOT, PurePosixPath(KEY))
    part = await node.ranged.assemble(place, version=f"{info.version} {KEY}", size_bytes=info.size_bytes)
    part.write_at(0, memoryview(b"old"))
    await part.keep()
    node.store.store(KEY, b"new content")
    async with node.live() as cache:
        await cache.ensure(KEY)
    assert node.cached() == b"new content"


async def test_an_object_replaced_while_it_is_read_is_read_anew(node: Node) -> None:
    node.store.block_s = 0.01
    node.store.store(KEY, b"a" * 64 * 1024 * 4)
    async with node.live() as cache, anyio.create_task_group() as tasks:
        tasks.start_soon(cache.ensure, KEY)
        await anyio.sleep(0.025)
        node.store.store(KEY, b"b" * 100)
    assert node.cached() == b"b" * 100
    assert node.hidden == []


async def test_a_bug_in_an_adapter_is_answered(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(node.store, "open", broken)
    async with node.live() as cache:
        with caplog.at_level(logging.CRITICAL, logger="nobody"), pytest.raises(DownloadFailed, match="a bug"):
            await cache.ensure(KEY)


async def test_records_are_kept_though_saving_them_was_cut_by_the_end_of_the_worker(node: Node) -> None:
    node.store.store(KEY, b"weights")
    async with node.live() as cache:
        await cache.ensure(KEY)
        records = cache.directory.records
        await cache._settling.settle()
        node.disk.put(Path("/node/state") / FILE_NAME, b"{}")
        await cache.ensure(KEY)  # wanted again: there is something to save
        with anyio.CancelScope() as scope:
            scope.cancel()
            await records.save()
    assert KEY.encode() in (node.disk.get(Path("/node/state") / FILE_NAME) or b"")
