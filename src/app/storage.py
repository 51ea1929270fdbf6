"""The object store's part of a worker: its commands, its cache and what looks after them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio

from ..domain.cache_directory import CacheDirectory
from ..domain.cache_janitor import CacheJanitor
from ..domain.cache_records import CacheRecords
from ..domain.messages.files import (
    FilesEnsureReply,
    FilesEnsureRequest,
    FilesListdirReply,
    FilesListdirRequest,
    FilesStageReply,
    FilesStageRequest,
    FilesTempReply,
)
from ..domain.messages.subjects import NodeSubjects
from ..domain.object_cache import ObjectCache
from ..domain.ports.clock import Clock
from ..domain.ports.filesystem import FileSystem
from ..domain.ports.object_store import ObjectStore
from ..domain.ports.open_files import OpenFiles
from ..domain.ports.ranged_files import RangedFiles
from ..domain.stage_files import StageFiles
from ..domain.store_health import StoreHealth
from ..domain.supervise import Supervisor
from ..domain.validate_paths import FileRoots
from ..domain.vram_budget import parse_vram_budget
from .commands.command import Command, request, unread
from .commands.files import FileCommands
from .settings import Settings

CLOSE_S = 5.0


@dataclass
class Storage:
    """What a worker with an object store has more than others."""

    commands: FileCommands
    cache: ObjectCache
    health: StoreHealth
    janitor: CacheJanitor

    @property
    def worries(self) -> tuple[str, ...]:
        """What is wrong with the object store."""
        return self.health.worries

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Fetch on request, look after the store and sweep; the store need not be there.

        Raises:
            FileUnwritable: the cache directory cannot be created.
        """
        async with self.cache.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(self.health.watch)
            tasks.start_soon(self.janitor.sweep_forever)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
        with anyio.move_on_after(CLOSE_S, shield=True):
            await self.cache.store.close()

    def served(self, subjects: NodeSubjects) -> tuple[Command, ...]:
        """The four `files.*` subjects; without an object store nobody listens there, as upstream."""
        files = self.commands
        ensure, stage, listdir = FilesEnsureReply, FilesStageReply, FilesListdirReply
        return (
            request(
                subjects.files_ensure,
                FilesEnsureRequest.from_wire,
                files.ensure,
                ensure.failed,
                ensure.malformed,
            ),
            request(
                subjects.files_stage, FilesStageRequest.from_wire, files.stage, stage.failed, stage.malformed
            ),
            request(subjects.files_temp, unread, files.temp, FilesTempReply.failed),
            request(
                subjects.files_listdir,
                FilesListdirRequest.from_wire,
                files.listdir,
                listdir.failed,
                listdir.malformed,
            ),
        )


def build_storage(
    settings: Settings,
    store: ObjectStore | None,
    filesystem: FileSystem,
    ranged: RangedFiles,
    open_files: OpenFiles,
    clock: Clock,
    roots: FileRoots,
    supervisor: Supervisor,
) -> Storage | None:
    """The parts around `store`; None where there is none."""
    if store is None:
        return None
    root = settings.models_path.parent / "cache"
    health = StoreHealth(store)
    directory = CacheDirectory(filesystem, CacheRecords(filesystem, settings.state_path), clock, root)
    janitor = CacheJanitor(
        directory,
        running_models=lambda: {replica.key.model for replica in supervisor.replicas},
        open_files=open_files,
        budget=parse_vram_budget(settings.storage_cache_limit),
    )
    cache = ObjectCache(store, ranged, directory, janitor, health, verify=settings.storage_verify)
    staging = StageFiles(store, filesystem, ranged, health, roots, root)
    return Storage(FileCommands(cache, staging), cache, health, janitor)


def make_object_store(settings: Settings) -> Any:
    """The store that the settings name; None without one. boto3 is loaded for S3 only, at its first use."""
    if not settings.storage_url:
        return None
    if settings.storage_url.startswith("file://"):
        from ..adapters.shared_directory.object_store import DirectoryObjectStore

        return DirectoryObjectStore(Path(unquote(urlsplit(settings.storage_url).path)))
    from ..adapters.s3.lazy import LazyS3ObjectStore

    return LazyS3ObjectStore(
        settings.storage_url,
        settings.storage_bucket,
        settings.storage_region,
        settings.storage_access_key,
        settings.storage_secret_key,
    )
