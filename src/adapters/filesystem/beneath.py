"""Reaching places below a root without ever leaving it, whatever links lie inside and whoever moves them.

First the path is resolved and compared with the resolved root, dangling links included: creating through
one would make a file at its far end. Then the resolved path, which holds no link any more, is entered
directory by directory with O_NOFOLLOW from the opened root: a link put in its place meanwhile is an
error, not a way out.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...domain.errors import PathEscapes
from ...domain.ports.filesystem import RootedPath
from .directories import make_directories, sync_open_directory

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_DIRECTORY_MODE = 0o750
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not make us wait


@dataclass(frozen=True, slots=True)
class Resolved:
    """A place with every link followed: `parts` lead from `root`, a real directory, to it."""

    root: Path
    parts: tuple[str, ...]


def resolve(place: RootedPath) -> Resolved:
    """Follow every link of `place`; what is missing, or behind a dangling link, stays by name.

    Raises:
        PathEscapes: the result is not below the root.
    """
    root = Path(os.path.realpath(place.root))
    target = Path(os.path.realpath(root / place.relative))
    if not target.is_relative_to(root):
        raise PathEscapes(str(place.path), place.root)
    return Resolved(root, target.relative_to(root).parts)


def resolve_entry(place: RootedPath) -> tuple[Resolved, str]:
    """The resolved directory of `place` and its own name there, which may be a link and is not followed.

    Raises:
        PathEscapes: the directory, or what the name links to, is not below the root.
        IsADirectoryError: `place` is the root.
    """
    resolve(place)
    if not place.relative.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return resolve(RootedPath(place.root, place.relative.parent)), place.relative.name


def open_entry(place: RootedPath, *, create: bool = False) -> tuple[int, str]:
    """A descriptor of the directory of `place`, which the caller closes, and its own name there.

    As `resolve_entry` and `open_directory`; where no link is met on the way, which is the rule, there is
    nothing to resolve.

    Raises:
        PathEscapes: the directory, or what the name links to, is not below the root.
        IsADirectoryError: `place` is the root.
    """
    name = place.relative.name
    if name:
        entered = _enter_without_links(place, create=create)
        if entered is not None:
            return entered[0], name
    directory, name = resolve_entry(place)
    return open_directory(directory, create=create), name


def look(place: RootedPath) -> os.stat_result:
    """What stands at `place`, links followed; a link that leads nowhere stands for itself.

    Raises:
        PathEscapes: it is not below the root.
    """
    entered = _enter_without_links(place, create=False) if place.relative.name else None
    if entered is None:
        return lstat(resolve(place))
    directory, status = entered
    os.close(directory)
    if status is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return status


def _enter_without_links(place: RootedPath, *, create: bool) -> tuple[int, os.stat_result | None] | None:
    """A descriptor of the directory of `place`, and what stands there; None when a link or another obstacle
    is met on the way.
    """
    try:
        descriptor = os.open(place.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        for part in place.relative.parts[:-1]:
            entered = enter(descriptor, part, create=create)
            os.close(descriptor)
            descriptor = entered
        try:
            status = os.stat(place.relative.name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return descriptor, None
        if not stat.S_ISLNK(status.st_mode):
            return descriptor, status
    except OSError:
        pass  # what it means, the longer way tells
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def open_directory(directory: Resolved, *, create: bool = False) -> int:
    """A descriptor of `directory`; the caller closes it. With `create`, what is missing is made (0750)."""
    if create:
        make_directories(directory.root, NEW_DIRECTORY_MODE)
    descriptor = os.open(directory.root, DIRECTORY)
    try:
        for part in directory.parts:
            entered = enter(descriptor, part, create=create)
            os.close(descriptor)
            descriptor = entered
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def opened_directory(directory: Resolved) -> Iterator[int]:
    """`open_directory` for the length of a `with`."""
    descriptor = open_directory(directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_entry(place: RootedPath) -> Iterator[tuple[int, str]]:
    """`open_entry` for the length of a `with`."""
    descriptor, name = open_entry(place)
    try:
        yield descriptor, name
    finally:
        os.close(descriptor)


def lstat(place: Resolved) -> os.stat_result:
    """What stands at a resolved place now, links not followed."""
    if not place.parts:
        return place.root.lstat()
    with opened_directory(Resolved(place.root, place.parts[:-1])) as parent:
        return os.stat(place.parts[-1], dir_fd=parent, follow_symlinks=False)


def open_regular(place: RootedPath) -> int:
    """A descriptor to read the regular file at `place`, links followed; the caller closes it.

    Raises:
        PathEscapes: it is not below the root.
        OSError: EISDIR for a directory, EINVAL for anything else that is no regular file.
    """
    directory, name = _entered_directory(place)
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    finally:
        os.close(directory)
    try:
        require_regular(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _entered_directory(place: RootedPath) -> tuple[int, str]:
    """A descriptor of the directory in which the file at `place` really lies, and its name there."""
    entered = _enter_without_links(place, create=False) if place.relative.name else None
    if entered is not None:
        return entered[0], place.relative.name
    resolved = resolve(place)
    if not resolved.parts:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return open_directory(Resolved(resolved.root, resolved.parts[:-1])), resolved.parts[-1]


def require_regular(status: os.stat_result) -> None:
    """Raise OSError unless `status` is that of a regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")


def walk_files(top: Resolved) -> list[PurePosixPath]:
    """Every name below `top` that is no directory, relative to it, names of one directory in order."""
    found: list[PurePosixPath] = []
    waiting = [PurePosixPath()]
    while waiting:
        below = waiting.pop()
        try:
            descriptor = open_directory(Resolved(top.root, (*top.parts, *below.parts)))
        except (FileNotFoundError, NotADirectoryError):
            if not below.parts:
                raise
            continue  # removed or replaced while we walked
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    into = waiting if entry.is_dir(follow_symlinks=False) else found
                    into.append(below / entry.name)
        finally:
            os.close(descriptor)
    return sorted(found, key=lambda path: [os.fsencode(part) for part in path.parts])


def enter(parent: int, name: str, *, create: bool = False) -> int:
    """A descriptor of the directory `name` in an open one, which may not be a link; the caller closes it."""
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):  # another upload made it meanwhile
        os.mkdir(name, NEW_DIRECTORY_MODE, dir_fd=parent)
        sync_open_directory(parent)
    return os.open(name, DIRECTORY, dir_fd=parent)
