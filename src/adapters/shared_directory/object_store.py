"""An `ObjectStore` in a directory that frontend and nodes share: a network volume, or a test's.

Keys are paths, as in the frontend's own store of this kind; `a//b` and `a/b` are one object.
Source: LocalAI core/services/storage/filesystem.go.
"""

import errno
import os
import posixpath
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from anyio import to_thread
from anyio.lowlevel import checkpoint

from ...domain.file_names import is_private_name, private_name
from ...domain.ports.object_store import ObjectInfo, StagingKey
from ...domain.ports.ranged_files import AssembledFile, SourceFile
from ...domain.store_errors import ObjectChanged, ObjectInvalid, ObjectMissing, StoreRefused, StoreUnavailable
from ..stoppable import in_stoppable_thread

BLOCK_BYTES = 1024 * 1024
WHOLE_BYTES = 512 * 1024  # up to here an object is read as it is opened
_FULL = {errno.ENOSPC, errno.EDQUOT}


class DirectoryStoredObject:
    """A `StoredObject` read through a descriptor: a disk gains nothing from several at once."""

    def __init__(self, key: StagingKey, info: ObjectInfo, descriptor: int, whole: bytes | None) -> None:
        self.info, self.whole = info, whole
        self._key, self._descriptor = key, descriptor
        self._open = True

    async def copy_to(self, target: AssembledFile) -> None:
        await in_stoppable_thread(partial(self._copy, target))

    async def close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._descriptor)

    def _copy(self, target: AssembledFile, stopped: threading.Event) -> None:
        for gap in target.missing:
            at = gap.start
            while at < gap.stop and not stopped.is_set():
                with _failures(f"getting object {self._key}", self._key):
                    block = os.pread(self._descriptor, min(BLOCK_BYTES, gap.stop - at), at)
                if not block:
                    raise ObjectChanged(self._key)  # written in place, or cut
                target.write_at(at, memoryview(block))
                at += len(block)
        if stopped.is_set():
            return
        with _failures(f"getting object {self._key}", self._key):
            _require_unchanged(self._descriptor, self.info, self._key)


class DirectoryObjectStore:
    """Objects as files below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def head(self, key: StagingKey) -> ObjectInfo:
        def look() -> ObjectInfo:
            with self._opened(key, f"head {key}") as descriptor:
                return _info(os.fstat(descriptor))

        return await to_thread.run_sync(look)

    async def open(self, key: StagingKey, known: ObjectInfo | None = None) -> DirectoryStoredObject:
        def begin() -> DirectoryStoredObject:
            with self._opened(key, f"getting object {key}") as descriptor:
                info = _info(os.fstat(descriptor))
                if known is not None and info.version != known.version:
                    raise ObjectChanged(key)
                whole = os.pread(descriptor, info.size_bytes, 0) if info.size_bytes <= WHOLE_BYTES else None
                if whole is not None:
                    _require_unchanged(descriptor, info, key)
                return DirectoryStoredObject(key, info, os.dup(descriptor), whole)

        return await to_thread.run_sync(begin)

    async def part_size_bytes(self, key: StagingKey, info: ObjectInfo, parts: int) -> int | None:
        del key, info, parts
        await checkpoint()
        return None  # files have no parts

    async def put(self, key: StagingKey, source: SourceFile) -> None:
        await in_stoppable_thread(partial(self._put, key, source))

    async def delete(self, key: StagingKey) -> None:
        await to_thread.run_sync(self._delete, key)

    async def list_keys(self, prefix: str) -> tuple[StagingKey, ...]:
        return await to_thread.run_sync(self._list, prefix)

    async def check(self) -> None:
        await to_thread.run_sync(self._check)

    async def close(self) -> None:
        await checkpoint()

    def _path(self, key: str, operation: str) -> Path:
        relative = posixpath.normpath(key.lstrip("/")) if key.strip("/") else "."
        if relative == "." or relative.split("/")[0] == ".." or key.endswith("/"):
            raise ObjectInvalid(operation, f'key "{key}" resolves outside storage root, or names a directory')
        if "\0" in relative or any(is_private_name(part) for part in relative.split("/")):
            raise ObjectInvalid(operation, f"no file can be called {relative!a}, or it is kept for the store")
        return self._root / relative

    @contextmanager
    def _opened(self, key: StagingKey, operation: str) -> Iterator[int]:
        path = self._path(key, operation)
        self._require_root(operation)
        with _failures(operation, key):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError):
                raise ObjectMissing(operation, str(self._root)) from None
        try:
            if not self._is_inside(path):
                raise ObjectInvalid(operation, f'key "{key}" resolves outside storage root {self._root}')
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ObjectMissing(operation, str(self._root))
            yield descriptor
        finally:
            os.close(descriptor)

    def _is_inside(self, path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self._root))

    def _put(self, key: StagingKey, source: SourceFile, stopped: threading.Event) -> None:
        operation = f"putting object {key}"
        path = self._path(key, operation)
        self._require_root(operation)
        temporary = path.with_name(private_name(path.name, secrets.token_hex(8)))
        with _failures(operation, key):
            if not self._is_inside(path):
                raise ObjectInvalid(operation, f'key "{key}" resolves outside storage root {self._root}')
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            try:
                with temporary.open("xb") as file:
                    for at in range(0, source.size_bytes, BLOCK_BYTES):
                        if stopped.is_set():
                            raise InterruptedError("the upload was cancelled")
                        file.write(source.read_at(at, BLOCK_BYTES))
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(path)
            finally:
                with suppress(FileNotFoundError):
                    temporary.unlink()

    def _delete(self, key: StagingKey) -> None:
        operation = f"deleting object {key}"
        path = self._path(key, operation)
        self._require_root(operation)
        with _failures(operation, key), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            if self._is_inside(path.parent):
                path.unlink()

    def _list(self, prefix: str) -> tuple[StagingKey, ...]:
        operation = f"listing objects with prefix {prefix}"
        self._require_root(operation)
        found = []
        with _failures(operation, prefix):
            for directory, _, names in os.walk(self._root):
                below = Path(directory).relative_to(self._root)
                found += [(below / name).as_posix() for name in names if not is_private_name(name)]
        return tuple(StagingKey(key) for key in sorted(found) if key.startswith(prefix))

    def _check(self) -> None:
        operation = "looking at the object store"
        self._require_root(operation)
        with _failures(operation, ""), os.scandir(self._root):
            pass

    def _require_root(self, operation: str) -> None:
        with _failures(operation, ""):
            is_there = self._root.is_dir()
        if not is_there:
            reason = f"there is no directory {self._root}; is the volume mounted? check LOCALAI_STORAGE_URL"
            raise StoreUnavailable(operation, reason)


def _info(status: os.stat_result) -> ObjectInfo:
    etag = f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
    return ObjectInfo(status.st_size, etag, status.st_mtime_ns // 10**9)


def _require_unchanged(descriptor: int, info: ObjectInfo, key: StagingKey) -> None:
    """Raise ObjectChanged for a file that was written to while it was read: not everybody renames."""
    if _info(os.fstat(descriptor)) != info:
        raise ObjectChanged(key)


@contextmanager
def _failures(operation: str, key: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise StoreRefused(
            operation, f"{error.strerror}: {error.filename}; check its owner and mode"
        ) from error
    except IsADirectoryError as error:
        raise ObjectInvalid(operation, f'key "{key}" names a directory') from error
    except OSError as error:
        remedy = "; free some room in the directory of LOCALAI_STORAGE_URL" if error.errno in _FULL else ""
        raise StoreUnavailable(operation, (error.strerror or str(error)) + remedy) from error
