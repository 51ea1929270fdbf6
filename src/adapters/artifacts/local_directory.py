"""Backends that lie unpacked in a local directory."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...domain.errors import ArtifactInvalid, ArtifactMissing, ArtifactUnavailable
from ...domain.ports.artifacts import ArtifactEstimate, FetchedArtifact, FetchPhase
from .blobs.room import Room
from .progress import Meter
from .streams import CHUNK_BYTES
from .tree import TreeBuilder
from .tree_limits import TreeLimits
from .two_steps import Order, TwoSteps
from .web.flight import Flight


@dataclass(frozen=True, slots=True)
class LocalTree:
    """A directory of this node, links on the way to it resolved, and the size of its files."""

    path: Path
    size_bytes: int


@dataclass(frozen=True)
class LocalDirectories(TwoSteps[LocalTree]):
    """An `ArtifactSource` that copies the directory an absolute path names. Symlinks stay symlinks.

    Source: LocalAI core/gallery/backends.go, which takes an existing directory for the payload itself.
    """

    limits: TreeLimits = field(default_factory=TreeLimits)
    floor_bytes: int = 0  # of the disk that stay free

    def _look(self, uri: str, flight: Flight) -> LocalTree:
        return look_at_tree(Path(uri), uri, flight)

    def _estimate(self, found: LocalTree, uri: str) -> ArtifactEstimate:
        del uri
        return ArtifactEstimate(disk_bytes=found.size_bytes)

    def _place(self, found: LocalTree, order: Order) -> FetchedArtifact:
        return copy_tree(found, order, self.limits, self.floor_bytes)


def look_at_tree(path: Path, uri: str, flight: Flight) -> LocalTree:
    """The directory `path`.

    Raises:
        ArtifactMissing: nothing is there.
        ArtifactUnavailable: it is none, or cannot be read.
    """
    root = _resolve(path, uri)
    total = 0
    for _, info in _walk(root, uri):
        flight.check()
        total += info.st_size if stat.S_ISREG(info.st_mode) else 0
    return LocalTree(root, total)


def copy_tree(found: LocalTree, order: Order, limits: TreeLimits, floor_bytes: int) -> FetchedArtifact:
    """Copy a directory; nobody has hashed or signed it.

    Raises:
        ArtifactInvalid: devices, pipes or sockets are in it, or the place it would be copied to.
        ArtifactUnavailable, NoSpace, FileUnwritable: as `ArtifactSource.fetch`.
    """
    uri, into = order.uri, order.into
    if into.resolve().is_relative_to(found.path):
        raise ArtifactInvalid(uri, f"it contains {into}, the place it would be copied to")
    room = Room(into, floor_bytes)
    room.require(found.size_bytes, "the directory")
    order.meter.begin(found.size_bytes, FetchPhase.EXTRACTING)
    tree = TreeBuilder(into, uri, limits, order.flight.check, room)
    for path, info in _walk(found.path, uri):
        name = os.fspath(path.relative_to(found.path))
        if stat.S_ISDIR(info.st_mode):
            tree.add_directory(name, mode=info.st_mode, mtime_s=info.st_mtime)
        elif stat.S_ISREG(info.st_mode):
            chunks = _chunks(path, uri, order.meter)
            tree.add_file(name, mode=info.st_mode, mtime_s=info.st_mtime, chunks=chunks)
        elif stat.S_ISLNK(info.st_mode):
            tree.add_symlink(name, _link_text(path, uri), mtime_s=info.st_mtime)
        else:
            raise ArtifactInvalid(uri, f"{name!r} is a device, pipe or socket; only files are copied")
    tree.finish()
    return FetchedArtifact(size_bytes=tree.size_bytes)


def _resolve(path: Path, uri: str) -> Path:
    try:
        resolved = path.resolve(strict=True)
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
