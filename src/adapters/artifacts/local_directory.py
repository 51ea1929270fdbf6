"""Backends that lie unpacked in a local directory."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from anyio import from_thread, to_thread

from ...domain.errors import ArtifactInvalid, ArtifactUnavailable
from ...domain.ports.artifacts import FetchedArtifact
from .streams import CHUNK_BYTES
from .tree import TreeBuilder, TreeLimits


@dataclass(frozen=True)
class LocalDirectories:
    """An `ArtifactSource` that copies the directory an absolute path names. Symlinks stay symlinks.

    Source: LocalAI core/gallery/backends.go, which takes an existing directory for the payload itself.
    """

    limits: TreeLimits = field(default_factory=TreeLimits)

    async def fetch(self, uri: str, into: Path) -> FetchedArtifact:
        """Runs in a worker thread, and notices a cancellation within one chunk or entry."""
        return await to_thread.run_sync(self._fetch, uri, into)

    def _fetch(self, uri: str, into: Path) -> FetchedArtifact:
        source = Path(uri)
        try:
            resolved = source.resolve(strict=True)
            if not resolved.is_dir():
                raise ArtifactUnavailable(uri, "it is no directory")
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in the path; links in a circle
            raise ArtifactUnavailable(uri, getattr(error, "strerror", None) or str(error)) from error
        if into.resolve().is_relative_to(resolved):
            raise ArtifactInvalid(uri, f"it contains {into}, the place it would be copied to")
        tree = TreeBuilder(into, uri, self.limits, from_thread.check_cancelled)
        _copy(resolved, tree, uri)
        tree.finish()
        return FetchedArtifact(size_bytes=tree.size_bytes)


def _copy(root: Path, tree: TreeBuilder, uri: str) -> None:
    pending = [root]
    while pending:
        for path in _children(pending.pop(), uri):
            name = os.fspath(path.relative_to(root))
            try:
                info = path.lstat()
                target = os.fspath(path.readlink()) if stat.S_ISLNK(info.st_mode) else ""
            except OSError as error:
                raise _unreadable(uri, path, error) from error
            if stat.S_ISDIR(info.st_mode):
                tree.add_directory(name, mode=info.st_mode, mtime_s=info.st_mtime)
                pending.append(path)
            elif stat.S_ISREG(info.st_mode):
                tree.add_file(name, mode=info.st_mode, mtime_s=info.st_mtime, chunks=_chunks(path, uri))
            elif target:
                tree.add_symlink(name, target, mtime_s=info.st_mtime)
            else:
                raise ArtifactInvalid(uri, f"{name!r} is a device, pipe or socket; only files are copied")


def _children(directory: Path, uri: str) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise _unreadable(uri, directory, error) from error


def _chunks(path: Path, uri: str) -> Iterator[bytes]:
    try:
        # It was a regular file a moment ago; if it is a link or a pipe by now, do not follow or wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            while chunk := os.read(descriptor, CHUNK_BYTES):
                yield chunk
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(uri, path, error) from error


def _unreadable(uri: str, path: Path, error: OSError) -> ArtifactUnavailable:
    return ArtifactUnavailable(uri, f"{path}: {error.strerror or error}")
