"""Backends that lie unpacked in a local directory."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from anyio import from_thread, to_thread

from ...domain.errors import ArtifactInvalid, ArtifactMissing, ArtifactUnavailable
from ...domain.ports.artifacts import (
    Approve,
    ArtifactEstimate,
    FetchedArtifact,
    FetchPhase,
    Report,
    approve_any,
    unreported,
)
from .blobs.room import Room
from .progress import Meter, reporting
from .streams import CHUNK_BYTES
from .tree import TreeBuilder
from .tree_limits import TreeLimits


@dataclass(frozen=True)
class LocalDirectories:
    """An `ArtifactSource` that copies the directory an absolute path names. Symlinks stay symlinks.

    Work runs in worker threads, and notices a cancellation within one chunk or entry.
    Source: LocalAI core/gallery/backends.go, which takes an existing directory for the payload itself.
    """

    limits: TreeLimits = field(default_factory=TreeLimits)
    floor_bytes: int = 0  # of the disk that stay free

    async def fetch(
        self,
        uri: str,
        into: Path,
        *,
        sha256: str = "",
        approve: Approve = approve_any,
        report: Report = unreported,
    ) -> FetchedArtifact:
        del sha256, approve  # nobody has hashed or signed a directory
        async with reporting(report) as meter:
            source = await to_thread.run_sync(_resolve, uri)
            size_bytes = await to_thread.run_sync(_size_bytes, source, uri)
            Room(into, self.floor_bytes).require(size_bytes, "the directory")
            meter.begin(size_bytes, FetchPhase.EXTRACTING)
            return await to_thread.run_sync(self._copy, uri, source, into, meter)

    async def describe(self, uri: str) -> ArtifactEstimate:
        source = await to_thread.run_sync(_resolve, uri)
        return ArtifactEstimate(disk_bytes=await to_thread.run_sync(_size_bytes, source, uri))

    def _copy(self, uri: str, source: Path, into: Path, meter: Meter) -> FetchedArtifact:
        if into.resolve().is_relative_to(source):
            raise ArtifactInvalid(uri, f"it contains {into}, the place it would be copied to")
        room = Room(into, self.floor_bytes)
        tree = TreeBuilder(into, uri, self.limits, from_thread.check_cancelled, room)
        for path, info in _walk(source, uri):
            name = os.fspath(path.relative_to(source))
            if stat.S_ISDIR(info.st_mode):
                tree.add_directory(name, mode=info.st_mode, mtime_s=info.st_mtime)
            elif stat.S_ISREG(info.st_mode):
                chunks = _chunks(path, uri, meter)
                tree.add_file(name, mode=info.st_mode, mtime_s=info.st_mtime, chunks=chunks)
            elif stat.S_ISLNK(info.st_mode):
                tree.add_symlink(name, _link_text(path, uri), mtime_s=info.st_mtime)
            else:
                raise ArtifactInvalid(uri, f"{name!r} is a device, pipe or socket; only files are copied")
        tree.finish()
        return FetchedArtifact(size_bytes=tree.size_bytes)


def _resolve(uri: str) -> Path:
    try:
        resolved = Path(uri).resolve(strict=True)
        if not resolved.is_dir():
            raise ArtifactUnavailable(uri, "it is no directory")
    except FileNotFoundError as error:
        raise ArtifactMissing(uri, str(error.strerror)) from error
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the path; links in a circle
        raise ArtifactUnavailable(uri, getattr(error, "strerror", None) or str(error)) from error
    return resolved


def _walk(root: Path, uri: str) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below `root`, a directory before what it holds; links are not followed."""
    pending = [root]
    while pending:
        for path in _children(pending.pop(), uri):
            try:
                info = path.lstat()
            except OSError as error:
                raise _unreadable(uri, path, error) from error
            if stat.S_ISDIR(info.st_mode):
                pending.append(path)
            yield path, info


def _size_bytes(root: Path, uri: str) -> int:
    total = 0
    for _, info in _walk(root, uri):
        from_thread.check_cancelled()
        total += info.st_size if stat.S_ISREG(info.st_mode) else 0
    return total


def _link_text(path: Path, uri: str) -> str:
    try:
        return os.fspath(path.readlink())
    except OSError as error:
        raise _unreadable(uri, path, error) from error


def _children(directory: Path, uri: str) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise _unreadable(uri, directory, error) from error


def _chunks(path: Path, uri: str, meter: Meter) -> Iterator[bytes]:
    try:
        # It was a regular file a moment ago; if it is a link or a pipe by now, do not follow or wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            while chunk := os.read(descriptor, CHUNK_BYTES):
                meter.add(len(chunk))
                yield chunk
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(uri, path, error) from error


def _unreadable(uri: str, path: Path, error: OSError) -> ArtifactUnavailable:
    return ArtifactUnavailable(uri, f"{path}: {error.strerror or error}")
