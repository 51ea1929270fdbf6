"""What the frontend does with this node's files through an object store: send results, make room, list."""

import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import anyio

from .cache_keys import parse_staging_key
from .errors import FileUnreadable, PathEscapes, WorkerError
from .file_names import hide_own_files
from .ports.filesystem import FileSystem, RootedPath
from .ports.object_store import ObjectStore
from .ports.ranged_files import RangedFiles, SourceFile
from .store_health import StoreHealth
from .validate_paths import FileRoots, InvalidKey, place_below

log = logging.getLogger(__name__)

STAGE_S = 570.0  # the frontend waits 10 minutes
TEMPORARY_DIRECTORY = "staging-tmp"  # below the cache


@dataclass(eq=False)
class PathNotAllowed(WorkerError):
    """A path that is in none of the worker's directories, symlinks followed."""

    def __str__(self) -> str:
        return "path outside allowed directories"


@dataclass(eq=False)
class InvalidKeyPrefix(WorkerError):
    """A prefix that leads out of the directory it names."""

    def __str__(self) -> str:
        return "invalid key prefix"


@dataclass(eq=False)
class UnreadableForUpload(WorkerError):
    """A file that is to be uploaded cannot be read."""

    path: str
    cause: FileUnreadable

    def __str__(self) -> str:
        return f"opening {self.path} for upload: {self.cause.reason}"


@dataclass(eq=False)
class UploadFailed(WorkerError):
    """A file could not be brought to the store; nothing was stored under `key`."""

    path: str
    key: str
    cause: WorkerError

    def __str__(self) -> str:
        return f"uploading {self.path} to {self.key}: {self.cause}"


@dataclass(eq=False)
class UploadTooSlow(WorkerError):
    """An upload took longer than the frontend waits."""

    size_bytes: int

    def __str__(self) -> str:
        return f"{self.size_bytes} bytes were not sent within {STAGE_S:g} s, and the frontend waits no longer"


@dataclass
class StageFiles:
    """The other three requests of a frontend with an object store; `ObjectCache` answers the first.

    Source: LocalAI core/services/worker/file_staging.go.
    """

    store: ObjectStore
    filesystem: FileSystem
    ranged: RangedFiles
    health: StoreHealth
    roots: FileRoots
    cache: Path

    async def stage(self, local_path: str, key: str) -> None:
        """Upload the worker's file `local_path` as the object `key`.

        A path that leads into one of the worker's directories is taken, with symlinks followed on both sides.
        `/models/...` and `/data/...`, which frontends make from keys, mean those directories (S-K07).

        Raises:
            PathNotAllowed: it leads elsewhere.
            InvalidKey: no object can have this key.
            UnreadableForUpload: there is no such regular file, or it is not ours to read.
            UploadFailed: it cannot be stored.
        """
        staging_key = parse_staging_key(key)
        source = await self._source(local_path)
        try:
            with anyio.fail_after(STAGE_S):
                await self.store.put(staging_key, source)
        except TimeoutError as error:
            raise UploadFailed(local_path, key, UploadTooSlow(source.size_bytes)) from error
        except WorkerError as error:
            self.health.failed(error)
            raise UploadFailed(local_path, key, error) from error
        finally:
            with anyio.CancelScope(shield=True):
                await source.close()
        self.health.worked()
        log.info("staged: path=%s key=%s size_bytes=%d", local_path, key, source.size_bytes)

    async def new_temporary(self) -> Path:
        """A fresh empty file for a backend to write a result to.

        Raises:
            NoSpace, FileUnwritable: it cannot be created.
        """
        directory = self.cache / TEMPORARY_DIRECTORY
        await self.filesystem.make_directory(directory)
        return await self.filesystem.create_empty(directory, prefix="localai-staging-", suffix=".tmp")

    async def list_files(self, key_prefix: str) -> tuple[PurePosixPath, ...]:
        """Every file below the directory `key_prefix`, relative to it, in walk order.

        `models/...` and `data/...` are those directories, everything else is the cache. What the worker keeps
        there for itself is left out.

        Raises:
            InvalidKeyPrefix, PathEscapes: it leads out of the directory, by name or by symlink.
            FileUnreadable: it is missing, no directory, or part of it is not ours to read.
        """
        root, rest = self._root_of(key_prefix)
        try:
            place = place_below(root, rest, key=key_prefix)
        except (PathEscapes, InvalidKey) as error:
            raise InvalidKeyPrefix from error
        paths = await self.filesystem.walk_files(place)
        if paths is None:
            raise FileUnreadable(place.path, "no such directory")
        return hide_own_files(paths)

    def _root_of(self, prefix: str) -> tuple[Path, str]:
        for name, root in (("models/", self.roots.models), ("data/", self.roots.data)):
            if prefix.startswith(name):
                return root, prefix.removeprefix(name)
        return self.cache, prefix

    async def _source(self, local_path: str) -> SourceFile:
        """The first file there is of those that `local_path` may mean."""
        allowed = [place for path in self._candidates(local_path) if (place := await self._allowed(path))]
        if not allowed:
            raise PathNotAllowed
        try:
            for place in allowed:
                source = await self.ranged.open_source(place)
                if source is not None:
                    return source
        except FileUnreadable as error:
            raise UnreadableForUpload(local_path, error) from error
        except PathEscapes as error:  # a link was put in its place since we looked
            raise PathNotAllowed from error
        raise UnreadableForUpload(local_path, FileUnreadable(allowed[0].path, "no such file"))

    def _candidates(self, local_path: str) -> tuple[Path, ...]:
        """What `local_path` may mean, the likeliest first."""
        if not local_path.startswith("/") or "\0" in local_path:
            return ()
        meant = [Path(local_path)]
        if ".." in local_path.split("/"):
            return tuple(meant)
        if local_path.startswith("/models/"):
            rest = local_path.removeprefix("/models/")
            meant += [self.roots.models / rest, self.cache / "models" / rest]
        if local_path.startswith("/data/"):
            meant.append(self.roots.data / local_path.removeprefix("/data/"))
        return tuple(meant)

    async def _allowed(self, path: Path) -> RootedPath | None:
        """The place of `path` below one of the worker's directories; None when it is in none."""
        allowed = (self.cache, self.roots.models, self.roots.staging, self.roots.data)
        real, *real_roots = await self.ranged.real_paths(path, *allowed)
        for real_root in real_roots:
            if real.is_relative_to(real_root):
                return RootedPath(real_root, PurePosixPath(real.relative_to(real_root)))
        return None
