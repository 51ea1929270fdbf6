"""The object cache over the in-memory store: fresh, shared, whole, resumed."""

import hashlib
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
from localai_worker.adapters.memory.ranged_files import InMemoryRangedFiles
from localai_worker.domain import object_cache
from localai_worker.domain.cache_keys import KeyEscapesCache
from localai_worker.domain.cache_records import FILE_NAME, CacheRecords
from localai_worker.domain.object_cache import DownloadFailed, ObjectCache, StillDownloading
from localai_worker.domain.ports.filesystem import RootedPath
from localai_worker.domain.ports.object_store import ObjectInfo, StagingKey
from localai_worker.domain.store_health import StoreHealth
from localai_worker.domain.validate_paths import InvalidKey
from tests.virtual_time import VIRTUAL_TIME, AnyioBackend

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
        health = StoreHealth(self.store)
        records = CacheRecords(self.disk, Path("/node/state"))
        cache = ObjectCache(
            self.store, self.disk, self.ranged, records, health, LoopClock(), ROOT, verify=verify
        )
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


async def test_an_object_is_fetched_by_one_request_and_lies_under_its_key(node: Node) -> None:
    node.store.store(KEY, b"weights")
    async with node.live() as cache:
        assert await cache.ensure(KEY) == ROOT / KEY
    assert node.cached() == b"weights"
    assert node.store.asked == [f"GET {KEY}"]
    assert node.hidden == []


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


async def test_an_unchanged_object_costs_one_head(node: Node) -> None:
    """S-K05: upstream takes any file there for the object, and never asks again."""
    node.store.store(KEY, b"weights")
    async with node.live() as cache:
        await cache.ensure(KEY)
        node.store.asked.clear()
        assert await cache.ensure(KEY) == ROOT / KEY
    assert node.store.asked == [f"HEAD {KEY}"]


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
        assert looks == [3600 + object_cache.SAVE_EVERY_S]
        await cache.ensure(KEY)
        await anyio.sleep(3600)
        assert looks[1:] == [2 * 3600 + object_cache.SAVE_EVERY_S]


async def test_a_changed_object_is_fetched_again_and_readers_keep_the_old_one(node: Node) -> None:
    """S-K05, N-B22: a model that changed under its key keeps its old bytes for ever."""
    node.store.store(KEY, b"old weights")
    async with node.live() as cache:
        await cache.ensure(KEY)
        reader = await node.disk.open_outgoing(RootedPath(ROOT, PurePosixPath(KEY)))
        assert reader is not None
        node.store.store(KEY, b"new weights")  # of the same size
        await cache.ensure(KEY)
    assert node.cached() == b"new weights"
    assert b"".join([chunk async for chunk in reader.chunks()]) == b"old weights"


async def test_the_next_life_knows_what_it_holds(node: Node) -> None:
    node.store.store(KEY, b"weights")
    async with node.live() as cache:
        await cache.ensure(KEY)
    node.store.asked.clear()
    async with node.live(verify=False) as cache:
        await cache.ensure(KEY)
    assert node.store.asked == [f"HEAD {KEY}"]


async def test_a_file_somebody_else_wrote_is_compared_by_hash(node: Node) -> None:
    """S-K05: a Go worker's cache is taken over without fetching what is still right."""
    node.store.store(KEY, b"weights")
    node.disk.put(ROOT / KEY, b"weights")
    async with node.live() as cache:
        await cache.ensure(KEY)
        assert node.store.asked == [f"HEAD {KEY}"]
        node.disk.put(ROOT / KEY, b"tampered")
        await cache.ensure(KEY)
        assert node.cached() == b"weights"
        node.disk.put(ROOT / KEY, b"w3ights")
        await cache.ensure(KEY)
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


async def test_requests_for_one_file_share_one_fetch(node: Node) -> None:
    """S-K10: upstream serves one ensure at a time."""
    node.store.store(KEY, b"weights")
    async with node.live() as cache, anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(cache.ensure, KEY)
    assert node.store.asked == [f"GET {KEY}"]


async def test_fetches_of_different_files_run_side_by_side(node: Node) -> None:
    """S-K10, N-B22: a ten-minute download holds up every other one on the node."""
    node.store.block_s = 0.05
    node.store.store("models/slow", b"s" * 64 * 1024 * 20)
    node.store.store("models/quick", b"quick")
    done: list[str] = []

    async with node.live() as cache, anyio.create_task_group() as tasks:

        async def ensure(key: str) -> None:
            await cache.ensure(key)
            done.append(key)

        tasks.start_soon(ensure, "models/slow")
        tasks.start_soon(ensure, "models/quick")
    assert done == ["models/quick", "models/slow"]


async def test_two_keys_of_one_path_take_turns(node: Node) -> None:
    """S-K10: `a//b` and `a/b` are two objects and one path; upstream mixes their temporary files."""
    node.store.store("a/b", b"one")
    node.store.store("a//b", b"two")
    async with node.live() as cache:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.ensure, "a/b")
            tasks.start_soon(cache.ensure, "a//b")
        assert node.cached("a/b") == b"two"
        await cache.ensure("a/b")
        assert node.cached("a/b") == b"one"
    assert node.hidden == []


async def test_the_key_of_a_temporary_name_is_a_file_like_any_other(node: Node) -> None:
    """S-K10: upstream's temporary of `x` is the file of the key `x.tmp`."""
    node.store.store("models/x", b"x")
    node.store.store("models/x.tmp", b"x.tmp")
    async with node.live() as cache, anyio.create_task_group() as tasks:
        tasks.start_soon(cache.ensure, "models/x")
        tasks.start_soon(cache.ensure, "models/x.tmp")
    assert (node.cached("models/x"), node.cached("models/x.tmp")) == (b"x", b"x.tmp")


async def test_a_fetch_outlives_the_request_that_began_it(node: Node) -> None:
    node.store.block_s = 0.01
    node.store.store(KEY, b"w" * 64 * 1024 * 3)
    async with node.live() as cache:
        with anyio.move_on_after(0.015):
            await cache.ensure(KEY)
        assert node.cached() is None
        await cache.ensure(KEY)
    assert node.store.asked == [f"GET {KEY}"]


async def test_a_slow_download_is_answered_in_time_and_goes_on(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N-B22: there is no time limit, and the frontend waits for nothing."""
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


async def test_a_damaged_object_is_refused_and_the_old_file_stays(node: Node) -> None:
    node.store.store(KEY, b"weights")
    async with node.live() as cache:
        await cache.ensure(KEY)
        node.store.store(KEY, b"damaged", sha256=hashlib.sha256(b"healthy").hexdigest())
        with pytest.raises(
            DownloadFailed, match=r"sha256 mismatch: the store says .* LOCALAI_STORAGE_VERIFY"
        ):
            await cache.ensure(KEY)
        assert node.cached() == b"weights"
        assert node.hidden == []
    async with node.live(verify=False) as cache:
        await cache.ensure(KEY)
    assert node.cached() == b"damaged"


async def test_a_missing_object_is_told_and_the_old_file_stays(node: Node) -> None:
    node.store.store(KEY, b"weights")
    async with node.live() as cache:
        with pytest.raises(DownloadFailed) as caught:
            await cache.ensure("models/absent")
        assert str(caught.value).startswith("downloading models/absent: getting object models/absent: ")
        await cache.ensure(KEY)
        del node.store.objects[StagingKey(KEY)]
        with pytest.raises(DownloadFailed, match="no such object"):
            await cache.ensure(KEY)
    assert node.cached() == b"weights"


async def test_a_store_out_of_reach_is_an_error_and_no_stale_file(node: Node) -> None:
    """S-K05: whether the file is fresh nobody can tell then."""
    node.store.store(KEY, b"weights")
    async with node.live() as cache:
        await cache.ensure(KEY)
        node.store.offline = True
        with pytest.raises(DownloadFailed, match="offline"):
            await cache.ensure(KEY)
        assert "offline" in cache.health.worry
        node.store.offline = False
        await cache.ensure(KEY)
        assert cache.health.worry == ""


@pytest.mark.parametrize("size_bytes", [5000, object_cache.SMALL_BYTES + 1])
async def test_a_full_disk_is_told_before_anything_is_written(node: Node, size_bytes: int) -> None:
    node.store.store(KEY, b"w" * size_bytes)
    node.disk.capacity_bytes = 1000
    async with node.live() as cache:
        with pytest.raises(DownloadFailed, match="free some and try again"):
            await cache.ensure(KEY)
    assert node.cached() is None
    assert node.hidden == []


async def test_a_directory_in_the_way_is_told(node: Node) -> None:
    """S-K10: upstream takes a directory for a hit."""
    node.store.store("models/phi", b"weights")
    node.disk.put(ROOT / KEY, b"")
    async with node.live() as cache:
        with pytest.raises(DownloadFailed, match="directory stands in the way"):
            await cache.ensure("models/phi")


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("", KeyEscapesCache),
        (".", KeyEscapesCache),
        ("/", KeyEscapesCache),
        ("..", KeyEscapesCache),
        ("../x", KeyEscapesCache),
        ("models/../../x", KeyEscapesCache),
        ("models/a/../b", InvalidKey),
        ("models/a/", InvalidKey),
        ("nul\0", InvalidKey),
        ("lone\ud800", InvalidKey),
        ("n" * 256, InvalidKey),
        ("k/" * 512 + "k", InvalidKey),
        ("models/.x.incoming", InvalidKey),
    ],
)
async def test_keys_that_no_cached_file_can_have_are_refused(
    node: Node, key: str, error: type[Exception]
) -> None:
    async with node.live() as cache:
        with pytest.raises(error):
            await cache.ensure(key)
    assert node.store.asked == []


async def test_odd_keys_are_fetched(node: Node) -> None:
    for key in ("/abs/olute", "ephemeral/fetch//node/out/output", "späte/模型.gguf", "k" * 250):
        node.store.store(key, key.encode())
        async with node.live() as cache:
            assert await cache.ensure(key) == ROOT / key.lstrip("/").replace("//", "/")


async def test_a_bug_in_an_adapter_is_answered(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(node.store, "open", broken)
    async with node.live() as cache:
        with caplog.at_level(logging.CRITICAL, logger="nobody"), pytest.raises(DownloadFailed, match="a bug"):
            await cache.ensure(KEY)
