"""Keeps the object cache in bounds: what nobody asks for again goes, and the least used beyond a limit."""

import logging
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import anyio

from .cache_directory import CacheDirectory
from .errors import WorkerError
from .file_names import is_private_name
from .ports.filesystem import FileKind, RootedPath
from .ports.open_files import OpenFiles
from .stage_files import TEMPORARY_DIRECTORY
from .vram_budget import VramBudget

log = logging.getLogger(__name__)

EPHEMERAL = "ephemeral"  # below the cache: inputs and outputs of single requests
EVERY_S = 15 * 60.0  # as the frontend's cleaner of the store
EPHEMERAL_S = 3600.0  # the frontend deletes the objects after this time
TEMPORARY_S = 24 * 3600.0  # a result that a backend is still writing
UNFINISHED_S = 24 * 3600.0  # what is left of a download that nobody went on with
SPARE_SHARE = 0.05  # of the disk; a newer frontend chooses no node with less (or 1 GiB)
SPARE_BYTES = 2**30
REST_S = 3600.0  # a model file just asked for is about to be opened
ROOM_REST_S = 600.0  # the same where a file has no room otherwise: as long as the frontend waits for one


@dataclass(frozen=True, slots=True)
class CachedFile:
    """One file below the cache: when it was last wanted, or else written."""

    name: PurePosixPath
    size_bytes: int
    used_s: float
    is_object: bool = False  # fetched from the store, and not for a single request

    def is_below(self, directory: str) -> bool:
        return self.name.parts[0] == directory


@dataclass
class CacheJanitor:
    """Sweeps `directory`.

    Its files may take `budget` of the disk, and never the last of its room. `running_models` are the models
    that a backend serves now; their files, and those that a process has open, are never removed.
    """

    directory: CacheDirectory
    running_models: Callable[[], Collection[str]]
    open_files: OpenFiles
    budget: VramBudget = field(default_factory=VramBudget)
    _one_at_a_time: anyio.Lock = field(default_factory=anyio.Lock)

    async def sweep_forever(self) -> None:
        """Sweep now and every quarter of an hour."""
        while True:
            await self.sweep()
            await anyio.sleep(EVERY_S)

    async def sweep(self) -> None:
        """Remove what may go; what cannot be removed is told and tried again next time."""
        async with self._one_at_a_time:
            await self._sweep()

    async def make_room(self, needed_bytes: int) -> bool:
        """Have `needed_bytes` of the disk free; False when that cannot be: then nothing goes in vain.

        What has outlived its time goes first, then what was not wanted for the longest; never what is in use,
        or was asked for in the last ten minutes.
        """
        async with self._one_at_a_time:
            free_bytes = await self._free_bytes()
            if free_bytes >= needed_bytes:
                return True
            doomed = await self._removable()
            if free_bytes + sum(file.size_bytes for file in doomed) < needed_bytes:
                return False
            for file in doomed:
                if free_bytes < needed_bytes and await self._remove(file):
                    free_bytes = await self._free_bytes()
            return free_bytes >= needed_bytes

    async def _removable(self) -> list[CachedFile]:
        """What may go when room is needed, in the order in which it goes."""
        try:
            files = await self._files()
        except WorkerError as error:
            log.warning("the object cache cannot be searched for what may go: %s", error)
            return []
        now_s = self.directory.now_s()
        outlived, rest = self._sorted_out(files, now_s)
        rested = [
            file
            for file in rest
            if (file.is_object or self._is_abandoned(file)) and now_s - file.used_s > ROOM_REST_S
        ]
        idle = await self._idle(outlived + rested)
        return [file for file in idle if file.name not in self.directory.busy]

    def _is_abandoned(self, file: CachedFile) -> bool:
        """Whether it is what came of a download, and none that runs now may go on with it."""
        beside = file.name.parent
        return is_private_name(file.name.name) and all(busy.parent != beside for busy in self.directory.busy)

    async def _free_bytes(self) -> int:
        """What the disk has left; without bound where nobody can tell."""
        space = await self.directory.filesystem.space(self.directory.root)
        return sys.maxsize if space is None else space.available_bytes

    async def _sweep(self) -> None:
        try:
            files = await self._files()
        except WorkerError as error:
            log.warning("the object cache cannot be swept: %s", error)
            return
        now_s = self.directory.now_s()
        outlived, rest = self._sorted_out(files, now_s)
        for file in await self._idle(outlived):
            await self._remove(file)
        gone = {str(file.name) for file in files}
        for name in self.directory.records.names():
            if name not in gone and PurePosixPath(name) not in self.directory.busy:
                self.directory.records.forget(name)
        await self._keep_within(await self._limit_bytes(rest), rest, now_s)

    async def _limit_bytes(self, files: list[CachedFile]) -> int:
        """How much the cache may hold: its budget, and less where the disk is nearly full."""
        held_bytes = sum(file.size_bytes for file in files)
        space = await self.directory.filesystem.space(self.directory.root)
        if space is None:
            return self.budget.size_bytes or held_bytes
        spare_bytes = min(max(int(space.total_bytes * SPARE_SHARE), SPARE_BYTES), space.total_bytes // 2)
        lacking_bytes = max(0, spare_bytes - space.available_bytes)
        return min(self.budget.ceiling_bytes(space.total_bytes), max(0, held_bytes - lacking_bytes))

    def _sorted_out(self, files: list[CachedFile], now_s: float) -> tuple[list[CachedFile], list[CachedFile]]:
        """What has outlived its time, and the rest; each by when it was last wanted."""
        outlived: list[CachedFile] = []
        rest: list[CachedFile] = []
        for file in sorted(files, key=lambda file: (file.used_s, str(file.name))):
            (outlived if self._is_outlived(file, now_s) else rest).append(file)
        return outlived, rest

    def _is_outlived(self, file: CachedFile, now_s: float) -> bool:
        age_s = now_s - file.used_s
        if is_private_name(file.name.name):
            return age_s > UNFINISHED_S
        if file.is_below(TEMPORARY_DIRECTORY):
            return age_s > TEMPORARY_S
        return file.is_below(EPHEMERAL) and age_s > EPHEMERAL_S

    async def _keep_within(self, limit_bytes: int, files: list[CachedFile], now_s: float) -> None:
        held_bytes = sum(file.size_bytes for file in files)
        rested = [file for file in files if file.is_object and now_s - file.used_s > REST_S]
        for file in await self._idle(rested):
            if held_bytes <= limit_bytes:
                return
            if await self._remove(file):
                held_bytes -= file.size_bytes
        if held_bytes > limit_bytes:
            log.warning(
                "the object cache holds %d bytes, its limit is %d: the rest is in use",
                held_bytes,
                limit_bytes,
            )

    async def _files(self) -> list[CachedFile]:
        root, found = self.directory.root, []
        for name in await self.directory.filesystem.walk_files(RootedPath(root, PurePosixPath())) or ():
            stat = await self.directory.filesystem.stat(root / name)
            if stat is None or stat.kind is not FileKind.FILE:
                continue
            record = self.directory.records.get(str(name))
            used_s = max(stat.modified_ns / 1e9, record.used_s if record else 0.0)
            is_object = (record is not None or name.parts[0] == "models") and not is_private_name(name.name)
            found.append(CachedFile(name, stat.size_bytes, used_s, is_object))
        return found

    async def _idle(self, files: list[CachedFile]) -> list[CachedFile]:
        """Those of `files` that nobody uses, in their order."""
        models = self.running_models()
        quiet = [file for file in files if not self._serves(file, models)]
        paths = {self.directory.root / file.name for file in quiet}
        in_use = await self.open_files.among(frozenset(paths)) if paths else frozenset()
        return [file for file in quiet if self.directory.root / file.name not in in_use]

    def _serves(self, file: CachedFile, models: Collection[str]) -> bool:
        return any(file.name.is_relative_to(PurePosixPath("models", model.lstrip("/"))) for model in models)

    async def _remove(self, file: CachedFile) -> bool:
        if file.name in self.directory.busy:
            return False
        self.directory.records.forget(str(file.name))
        try:
            await self.directory.filesystem.remove_tree(self.directory.root / file.name)
        except WorkerError as error:
            log.warning("cached file not removed: %s", error)
            return False
        log.info("cached file removed: name=%s size_bytes=%d", file.name, file.size_bytes)
        if file.is_below(EPHEMERAL):
            await self._prune(file.name.parent)
        return True

    async def _prune(self, directory: PurePosixPath) -> None:
        """Remove the directories of a request that hold nothing any more."""
        while len(directory.parts) > 1:
            path = self.directory.root / directory
            try:
                if await self.directory.filesystem.list_directory(path):
                    return
                await self.directory.filesystem.remove_tree(path)
            except WorkerError as error:
                log.warning("empty directory not removed: %s", error)
                return
            directory = directory.parent
