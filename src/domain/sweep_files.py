"""Keeps the file server's directories in bounds: what was for one request, and what uploads left behind."""

import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import anyio

from .errors import WorkerError
from .file_names import is_partial_directory_name, is_private_name, sidecar_subject
from .ports.clock import Clock
from .ports.filesystem import FileKind, FileSystem, RootedPath
from .ports.open_files import OpenFiles
from .validate_paths import FileRoots

log = logging.getLogger(__name__)

EVERY_S = 15 * 60.0
OUTPUT_PREFIX, OUTPUT_SUFFIX = "localai-output-", ".tmp"  # results of backends, directly in staging
EPHEMERAL = "ephemeral"  # below staging: inputs of single requests
UNFINISHED_S = 3600.0  # of an upload in one piece; one that still comes is younger by its last byte
REST_S = 600.0  # a file that young is of a request that is still running, whatever the limit says


@dataclass(frozen=True, slots=True)
class SweptFile:
    """A file that may go one day."""

    place: RootedPath
    size_bytes: int
    age_s: float


@dataclass
class SweepFiles:
    """Removes inputs and results of requests from staging, and leftovers of uploads everywhere.

    Upstream removes none of them. Inputs and results go `keep_s` after their last change, and the oldest
    sooner while they take more than `limit_bytes` together (0: no limit); parts of uploads that nobody goes
    on with, `partial_s` after their last byte. What a process has open is never removed.
    """

    filesystem: FileSystem
    roots: FileRoots
    clock: Clock
    open_files: OpenFiles
    keep_s: float = 24 * 3600.0
    limit_bytes: int = 0
    partial_s: float = 24 * 3600.0

    async def sweep_forever(self) -> None:
        """Sweep now and every quarter of an hour."""
        while True:
            await self.sweep()
            await anyio.sleep(EVERY_S)

    async def sweep(self) -> None:
        """Remove what may go; what cannot be removed is told and tried again next time."""
        for root in (self.roots.models, self.roots.data, self.roots.staging):
            try:
                names = await self.filesystem.walk_files(RootedPath(root, PurePosixPath())) or ()
            except WorkerError as error:
                log.warning("cannot look for files to remove: %s", error)
                continue
            await self._sweep_leftovers(root, names)
            if root == self.roots.staging:
                await self._sweep_requests(names)

    async def _sweep_leftovers(self, root: Path, names: tuple[PurePosixPath, ...]) -> None:
        hidden = [name for name in names if any(map(is_private_name, name.parts))]
        files = await self._files(root, hidden)
        old = [file for file in files if file.age_s > self._longest_s(file)]
        for file in await self._idle(old):
            if await self._remove(file) and is_partial_directory_name(file.place.relative.parent.name):
                await self._remove_directory(root, file.place.relative.parent)

    async def _sweep_requests(self, names: tuple[PurePosixPath, ...]) -> None:
        files = await self._files(self.roots.staging, [name for name in names if _is_of_a_request(name)])
        files.sort(key=lambda file: -file.age_s)
        held_bytes = sum(file.size_bytes for file in files)
        candidates = [file for file in files if file.age_s > min(REST_S, self.keep_s)]
        for file in await self._idle(candidates):
            over = 0 < self.limit_bytes < held_bytes
            if not over and file.age_s <= self.keep_s:
                continue
            if await self._remove(file):
                held_bytes -= file.size_bytes
                await self._prune(file.place.relative.parent)
        if 0 < self.limit_bytes < held_bytes:
            log.warning(
                "files of requests take %d bytes of staging, the limit is %d: the rest is in use or young",
                held_bytes,
                self.limit_bytes,
            )

    def _longest_s(self, file: SweptFile) -> float:
        in_pieces = is_partial_directory_name(file.place.relative.parent.name)
        return self.partial_s if in_pieces else UNFINISHED_S

    async def _files(self, root: Path, names: list[PurePosixPath]) -> list[SweptFile]:
        now_s = self.clock.now().timestamp()
        found = []
        for name in names:
            stat = await self.filesystem.stat(root / name)
            if stat is not None and stat.kind is FileKind.FILE:
                age_s = now_s - stat.modified_ns / 1e9
                found.append(SweptFile(RootedPath(root, name), stat.size_bytes, age_s))
        return found

    async def _idle(self, files: list[SweptFile]) -> list[SweptFile]:
        """Those of `files` that no process uses, in their order."""
        paths = frozenset(file.place.path for file in files)
        in_use = await self.open_files.among(paths) if paths else frozenset()
        return [file for file in files if file.place.path not in in_use]

    async def _remove(self, file: SweptFile) -> bool:
        try:
            await self.filesystem.remove_file(file.place)
        except WorkerError as error:
            log.warning("old file not removed: %s", error)
            return False
        log.info("old file removed: path=%s size_bytes=%d", file.place.path, file.size_bytes)
        return True

    async def _prune(self, directory: PurePosixPath) -> None:
        """Remove the directories of a request that hold nothing any more, below `ephemeral` only."""
        while len(directory.parts) > 1 and await self._remove_directory(self.roots.staging, directory):
            directory = directory.parent

    async def _remove_directory(self, root: Path, directory: PurePosixPath) -> bool:
        path = root / directory
        try:
            if await self.filesystem.list_directory(path):
                return False
            await self.filesystem.remove_tree(path)
        except WorkerError as error:
            log.warning("empty directory not removed: %s", error)
            return False
        return True


def _is_of_a_request(name: PurePosixPath) -> bool:
    if any(map(is_private_name, name.parts)):
        return False
    if name.parts[0] == EPHEMERAL:
        return len(name.parts) > 1
    subject = sidecar_subject(name.name)
    alone = len(name.parts) == 1
    return alone and subject.startswith(OUTPUT_PREFIX) and subject.endswith(OUTPUT_SUFFIX)
