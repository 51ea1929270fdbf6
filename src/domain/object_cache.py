"""Objects of the store as files of this node: fetched once, compared with the store at every request."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from .cache_directory import CacheDirectory
from .cache_janitor import CacheJanitor
from .cache_keys import cache_place
from .errors import WorkerError
from .fetch_object import FetchObject, Progress
from .ports.filesystem import RootedPath
from .ports.object_store import ObjectStore, StagingKey
from .ports.ranged_files import RangedFiles
from .refresh_object import RefreshObject
from .settle_files import SettleFiles
from .store_errors import StoreFailure
from .store_health import StoreHealth

log = logging.getLogger(__name__)

ANSWER_S = 570.0  # the frontend waits 10 minutes; an answer beats its timeout
FETCHES_AT_ONCE = 32


@dataclass(eq=False)
class DownloadFailed(WorkerError):
    """An object could not be brought to this node; the cached file, if there was one, is as it was."""

    key: str
    cause: WorkerError

    def __str__(self) -> str:
        return f"downloading {self.key}: {self.cause}"


@dataclass(eq=False)
class StillDownloading(WorkerError):
    """A download takes longer than the frontend waits; it goes on, and the next request joins it."""

    key: str
    held_bytes: int
    total_bytes: int

    def __str__(self) -> str:
        held = f"{self.held_bytes} of {self.total_bytes} bytes are here" if self.total_bytes else "it waits"
        return f"downloading {self.key}: {held} and it goes on; ask again"


@dataclass
class _Fetch:
    """One running fetch, for all who ask."""

    key: StagingKey
    done: anyio.Event = field(default_factory=anyio.Event)
    error: WorkerError | None = None
    progress: Progress = field(default_factory=Progress)


@dataclass
class ObjectCache:
    """The files of `directory`, each a copy of an object. Only while `running` it fetches.

    A file is handed out when the store holds the very version it was made of: one HEAD for each request.
    Changed objects are fetched whole beside the old file, which readers keep, and renamed onto it. `verify`:
    compare what came with the hash that the object's metadata or ETag tell.
    """

    store: ObjectStore
    ranged: RangedFiles
    directory: CacheDirectory
    janitor: CacheJanitor
    health: StoreHealth
    verify: bool = True
    _fetches: dict[Path, _Fetch] = field(default_factory=dict)
    _tasks: TaskGroup | None = None
    _slots: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(FETCHES_AT_ONCE))

    def __post_init__(self) -> None:
        self._settling = SettleFiles(self.directory.records)
        filesystem = self.directory.filesystem
        fetching = FetchObject(self.store, filesystem, self.ranged, self.janitor, self.verify)
        self._refreshing = RefreshObject(self.store, self.ranged, self.directory, fetching, self._settling)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve requests; leaving cancels what is still fetched, and keeps what came of it.

        Raises:
            FileUnwritable: the cache directory cannot be created.
        """
        await self.directory.filesystem.make_directory(self.directory.root)
        await self.directory.records.load()
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._settling.settle_forever)
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._settling.settle()

    async def ensure(self, key: str) -> Path:
        """The path of a file that holds what the store has under `key` now.

        Requests for one file share one fetch; it goes on when all who asked are gone.

        Raises:
            KeyEscapesCache, InvalidKey: no cached file can have this key.
            DownloadFailed: the object is missing, damaged or out of reach, or does not fit here.
            StillDownloading: it takes longer than the frontend waits.
        """
        place = cache_place(key, self.directory.root)
        fetch: _Fetch | None = None
        with anyio.move_on_after(ANSWER_S):
            while True:
                fetch = self._fetches.get(place.path)
                if fetch is None:
                    fetch = self._begin(StagingKey(key), place)
                await fetch.done.wait()
                if fetch.key != key:  # another key of the same path: it has its turn first
                    continue
                if fetch.error is not None:
                    raise DownloadFailed(key, fetch.error)
                return place.path
        assert fetch is not None
        raise StillDownloading(fetch.key, fetch.progress.held_bytes, fetch.progress.total_bytes)

    def _begin(self, key: StagingKey, place: RootedPath) -> _Fetch:
        if self._tasks is None:
            raise DownloadFailed(key, StoreFailure("the object cache", "this worker is shutting down"))
        fetch = self._fetches[place.path] = _Fetch(key)
        self.directory.busy.add(place.relative)
        self._tasks.start_soon(self._run, fetch, place)
        return fetch

    async def _run(self, fetch: _Fetch, place: RootedPath) -> None:
        try:
            async with self._slots:
                await self._refreshing.refresh(fetch.key, place, fetch.progress)
        except WorkerError as error:
            fetch.error = error
            self.health.failed(error)
        except Exception as error:
            # A bug must not leave those who wait without an answer, nor end the worker.
            log.exception("fetching failed: key=%s", fetch.key)
            fetch.error = StoreFailure("internal error of the worker", f"{type(error).__name__}: {error}")
        except anyio.get_cancelled_exc_class():
            fetch.error = StoreFailure("the object cache", "this worker is shutting down")
            raise
        else:
            self.health.worked()
        finally:
            del self._fetches[place.path]
            self.directory.busy.discard(place.relative)
            fetch.done.set()
