"""A node's object cache, stager and janitor over every adapter: memory, a directory, two S3 servers."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Protocol

import anyio
from anyio.lowlevel import checkpoint

from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.filesystem.ranged_files import LocalRangedFiles
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.object_store import InMemoryObjectStore
from localai_worker.adapters.memory.open_files import InMemoryOpenFiles
from localai_worker.adapters.memory.ranged_files import InMemoryRangedFiles
from localai_worker.adapters.processes.open_files import LocalOpenFiles
from localai_worker.adapters.s3.client import Bucket
from localai_worker.adapters.s3.object_store import S3ObjectStore
from localai_worker.adapters.shared_directory.object_store import DirectoryObjectStore
from localai_worker.domain.cache_directory import CacheDirectory
from localai_worker.domain.cache_janitor import CacheJanitor
from localai_worker.domain.cache_records import CacheRecords
from localai_worker.domain.delete_model import DeleteModel
from localai_worker.domain.object_cache import ObjectCache
from localai_worker.domain.ports.filesystem import FileSystem, RootedPath
from localai_worker.domain.ports.object_store import ObjectInfo, ObjectStore, StagingKey, StoredObject
from localai_worker.domain.ports.open_files import OpenFiles
from localai_worker.domain.ports.ranged_files import RangedFiles, SourceFile
from localai_worker.domain.stage_files import StageFiles
from localai_worker.domain.store_health import StoreHealth
from localai_worker.domain.validate_paths import FileRoots
from localai_worker.domain.vram_budget import VramBudget
from tests.faulty_proxy import FaultyProxy
from tests.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY

KINDS = ("memory", "directory", "rclone", "seaweed")
HOUR = timedelta(hours=1)
_numbers = count(1)


@dataclass
class HandClock:
    """Starts at the time of the machine, whose files are dated by it, and goes on by hand."""

    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    def now(self) -> datetime:
        return self.time


class Scene(Protocol):
    """A node's disk as tests see it; hidden files are listed too."""

    def put(self, path: Path, content: bytes) -> None: ...
    def get(self, path: Path) -> bytes | None: ...
    def link(self, path: Path, target: Path) -> None: ...
    def files(self, below: Path) -> list[Path]: ...


class LocalScene:
    """The disk of this machine."""

    def put(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def get(self, path: Path) -> bytes | None:
        return path.read_bytes() if path.is_file() else None

    def link(self, path: Path, target: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    def files(self, below: Path) -> list[Path]:
        return [path for path in sorted(below.rglob("*")) if path.is_symlink() or not path.is_dir()]


@dataclass
class WatchedStore:
    """An `ObjectStore` that tells what it was asked; what has a gate (`GET key`) waits there."""

    inner: ObjectStore
    asked: list[str] = field(default_factory=list)
    gates: dict[str, anyio.Event] = field(default_factory=dict)

    async def head(self, key: StagingKey) -> ObjectInfo:
        await self._ask(f"HEAD {key}")
        return await self.inner.head(key)

    async def open(self, key: StagingKey, known: ObjectInfo | None = None) -> StoredObject:
        await self._ask(f"GET {key}")
        return await self.inner.open(key, known)

    async def part_size_bytes(self, key: StagingKey, info: ObjectInfo, parts: int) -> int | None:
        return await self.inner.part_size_bytes(key, info, parts)

    async def put(self, key: StagingKey, source: SourceFile) -> None:
        await self._ask(f"PUT {key}")
        await self.inner.put(key, source)

    async def delete(self, key: StagingKey) -> None:
        await self.inner.delete(key)

    async def list_keys(self, prefix: str) -> tuple[StagingKey, ...]:
        return await self.inner.list_keys(prefix)

    async def check(self) -> None:
        await self.inner.check()

    async def close(self) -> None:
        await self.inner.close()

    async def _ask(self, question: str) -> None:
        self.asked.append(question)
        if question in self.gates:
            await self.gates[question].wait()


@dataclass
class Life:
    """One life of a node's worker, as far as object storage goes."""

    cache: ObjectCache
    janitor: CacheJanitor
    staging: StageFiles
    deleting: DeleteModel
    health: StoreHealth

    async def settle(self) -> None:
        """Let the disk have what was fetched, and let go of it: what is held open counts as in use."""
        await self.cache._settling.settle()


@dataclass
class ObjectNode:
    """A node at `base` whose store is of `kind`; its keys begin with `prefix`, which no other test uses."""

    kind: str
    base: Path
    scene: Scene
    filesystem: FileSystem
    ranged: RangedFiles
    open_files: OpenFiles
    store: WatchedStore
    proxy: FaultyProxy | None = None
    clock: HandClock = field(default_factory=HandClock)
    running_models: set[str] = field(default_factory=set)
    prefix: str = field(default_factory=lambda: f"models/test-{uuid.uuid4().hex[:12]}/")

    def key(self, rest: str) -> str:
        return self.prefix + rest

    @property
    def cache_root(self) -> Path:
        return self.base / "cache"

    def cached(self, key: str) -> bytes | None:
        return self.scene.get(self.cache_root / key)

    @property
    def names(self) -> set[str]:
        """Every file below the cache, hidden ones too."""
        found = self.scene.files(self.cache_root)
        return {str(path.relative_to(self.cache_root)) for path in found}

    @property
    def hidden(self) -> list[str]:
        return [name for name in self.names if PurePosixPath(name).name.startswith(".")]

    @asynccontextmanager
    async def live(self, *, verify: bool = True, limit_bytes: int | None = None) -> AsyncIterator[Life]:
        """A worker's life; its end cancels what is under way."""
        directory = CacheDirectory(
            self.filesystem, CacheRecords(self.filesystem, self.base / "state"), self.clock, self.cache_root
        )
        budget = VramBudget(size_bytes=limit_bytes)
        janitor = CacheJanitor(directory, lambda: self.running_models, self.open_files, budget)
        health = StoreHealth(self.store)
        roots = FileRoots(self.base / "models", self.base / "data", self.base / "staging")
        cache = ObjectCache(self.store, self.ranged, directory, janitor, health, verify=verify)
        staging = StageFiles(self.store, self.filesystem, self.ranged, health, roots, self.cache_root)
        deleting = DeleteModel(self.filesystem, roots.models, self.cache_root / "models")
        async with cache.running():
            yield Life(cache, janitor, staging, deleting, health)

    async def upload(self, rest: str, content: bytes) -> str:
        """Store an object as the frontend would, past what this node sees; its key."""
        key = self.key(rest)
        await self.upload_as(key, content)
        return key

    async def upload_as(self, key: str, content: bytes) -> None:
        place = RootedPath(self.base / "frontend", PurePosixPath(f"source-{next(_numbers)}"))
        self.scene.put(place.path, content)
        source = await self.ranged.open_source(place)
        assert source is not None
        await self.store.inner.put(StagingKey(key), source)
        await source.close()

    async def stored(self, key: str) -> bytes:
        """What the store has under `key`, read as the frontend would."""
        stored = await self.store.inner.open(StagingKey(key))
        try:
            place = RootedPath(self.base / "frontend", PurePosixPath(f"result-{next(_numbers)}"))
            target = await self.ranged.assemble(place, version="", size_bytes=stored.info.size_bytes)
            await stored.copy_to(target)
            await target.publish()
            await target.settle()
        finally:
            await stored.close()
        content = self.scene.get(place.path)
        assert content is not None
        return content

    async def stored_keys(self) -> tuple[str, ...]:
        return tuple(await self.store.inner.list_keys(self.prefix))

    async def until_asked(self, question: str) -> None:
        """Wait until the store was asked, and what was asked waits for it."""
        with anyio.fail_after(20):
            while question not in self.store.asked:
                await anyio.sleep(0.001)
        for _ in range(3):
            await checkpoint()

    @property
    def etag_tells_content(self) -> bool:
        return self.kind != "directory"

    def unplug(self) -> None:
        """Put the store out of reach."""
        if isinstance(self.store.inner, InMemoryObjectStore):
            self.store.inner.offline = True
        elif self.proxy is not None:
            self.proxy.refusing = True
        else:
            (self.base.parent / "store").rename(self.base.parent / "unplugged")

    def plug_in(self) -> None:
        if isinstance(self.store.inner, InMemoryObjectStore):
            self.store.inner.offline = False
        elif self.proxy is not None:
            self.proxy.refusing = False
        else:
            (self.base.parent / "unplugged").rename(self.base.parent / "store")


def bucket_at(url: str, **changed: str | float) -> Bucket:
    """The test servers' bucket, as seen through `url`."""
    fields = {"name": BUCKET, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, **changed}
    return Bucket(endpoint=url, **fields)  # type: ignore[arg-type]


def memory_node() -> ObjectNode:
    clock = HandClock()
    disk = InMemoryFileSystem(clock=clock)
    ranged, opened = InMemoryRangedFiles(disk), InMemoryOpenFiles()
    store = WatchedStore(InMemoryObjectStore())
    return ObjectNode("memory", Path("/node"), disk, disk, ranged, opened, store, clock=clock)


def local_node(
    kind: str, directory: Path, store: ObjectStore, proxy: FaultyProxy | None = None
) -> ObjectNode:
    files, ranged, opened = LocalFileSystem(), LocalRangedFiles(), LocalOpenFiles()
    base = directory / "node"
    return ObjectNode(kind, base, LocalScene(), files, ranged, opened, WatchedStore(store), proxy)


def directory_node(directory: Path) -> ObjectNode:
    (directory / "store").mkdir()
    return local_node("directory", directory, DirectoryObjectStore(directory / "store"))


def s3_node(kind: str, directory: Path, proxy: FaultyProxy) -> ObjectNode:
    return local_node(kind, directory, S3ObjectStore(bucket_at(proxy.url, connect_s=2.0)), proxy)
