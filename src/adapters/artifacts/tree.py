"""Building a directory tree from entries nobody vouches for, without ever leaving the directory."""

import errno
import math
import os
import shutil
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ...domain.errors import ArtifactInvalid, FileUnwritable
from .blobs.room import Room
from .filing import unwritable
from .link_copies import LinkCopies, is_refused

_LINK_HOPS = 40  # as Linux's own limit for one path lookup
_LATEST_MTIME_S = 2**33  # year 2242; what lies beyond is a broken header
_KNOWN_PARENTS = 4096
_NO_NAMES = frozenset({"", ".", ".."})
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


Created = TypeVar("Created")


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """How large one artifact may grow: unpacked bytes of all layers together, and entries of any kind.

    The defaults hold the largest published GPU backends several times over.
    """

    total_bytes: int = 64 * 2**30
    entries: int = 1_000_000


@dataclass
class TreeBuilder:
    """Places files, directories and links below `root`, an existing directory nobody else writes to.

    Names are looked up as if `root` were the root directory: a leading slash is dropped, and a
    symlink on the way to a parent is followed inside `root`, even one whose text is absolute or
    climbs. A name that itself contains `..` is refused. Symlinks keep their text, whatever it is (Python
    environments need absolute ones); nothing is written, linked or touched through one that leads out. On
    a file system without links, copies take their place.

    Of a mode only the nine permission bits count, and directories stay usable by their owner, so that
    the tree can be replaced later. Extended attributes are not taken over.

    All methods block, and raise ArtifactInvalid for a hostile or impossible entry or a limit passed,
    NoSpace or FileUnwritable when the file system refuses.
    """

    root: Path
    uri: str
    limits: TreeLimits
    check_cancelled: Callable[[], None]
    room: Room | None = None
    size_bytes: int = 0  # content of all files written, also of those replaced by a later layer
    _entries: int = 0
    _layer: int = 0
    _from_this_layer: set[Path] = field(default_factory=set)  # and their parents; empty for the first
    _directory_times: dict[Path, float] = field(default_factory=dict)
    _parents: dict[str, Path] = field(default_factory=dict)  # by the text in front of the last slash

    def __post_init__(self) -> None:
        self.root = self.root.resolve()
        self._copies = LinkCopies(self.root, self._count_copy)

    def begin_layer(self) -> None:
        """What `hide` and `hide_children` remove from now on is what lies there at this moment."""
        self._layer += 1
        self._from_this_layer.clear()

    def add_directory(self, name: str, *, mode: int, mtime_s: float) -> None:
        """Create a directory, or take over mode and time for one that is there."""
        with self._placing(name) as path:
            if path == self.root:
                return
            if not _is_directory(path):
                self._create(path, path.mkdir)
            path.chmod((mode & 0o777) | 0o700)
            self._directory_times[path] = mtime_s
            self._claim(path)

    def add_file(self, name: str, *, mode: int, mtime_s: float, chunks: Iterable[bytes]) -> None:
        """Write a regular file, replacing whatever has this name."""
        with self._placing(name) as path:
            descriptor = self._create(path, lambda: os.open(path, _NEW_FILE, 0o600))
            try:
                for chunk in chunks:
                    self.check_cancelled()
                    self._count_bytes(len(chunk))
                    _write_all(descriptor, chunk)
                os.fchmod(descriptor, mode & 0o777)
                if _is_time(mtime_s):
                    os.utime(descriptor, (mtime_s, mtime_s))
            finally:
                os.close(descriptor)
            self._claim(path)

    def add_symlink(self, name: str, target: str, *, mtime_s: float) -> None:
        """Create a symlink with exactly this text, replacing whatever has this name."""
        with self._placing(name) as path:
            if not target or "\0" in target:
                raise self._invalid(name, "a symlink without a target")
            try:
                self._create(path, lambda: path.symlink_to(target))
            except OSError as error:
                if not is_refused(error):
                    raise
                self._remove(path)
                self._copies.note(path, target)
                return
            _set_mtime(path, mtime_s)
            self._claim(path)

    def add_hardlink(self, name: str, target: str) -> None:
        """Give the file `target`, a name in the same tree, a second name."""
        with self._placing(name) as path:
            source = self._locate(target)
            if path in source.parents or not (source.is_symlink() or source.is_file()):
                raise self._invalid(name, f"a hard link to {target!r}, which is no file of this artifact")
            if source == path:
                return
            try:
                self._create(path, lambda: os.link(source, path, follow_symlinks=False))
            except OSError as error:
                if not is_refused(error):
                    raise
                self._count_bytes(source.lstat().st_size)
                self._create(path, lambda: shutil.copy2(source, path, follow_symlinks=False))
            self._claim(path)

    def hide(self, name: str) -> None:
        """Remove what earlier layers put at `name` (a whiteout); what this layer put there stays."""
        with self._placing(name) as path:
            self._hide(path)

    def hide_children(self, name: str) -> None:
        """Remove what earlier layers put into the directory `name` (an opaque whiteout)."""
        with self._placing(name) as path:
            if path == self.root or _is_directory(path):
                for child in list(path.iterdir()):
                    self._hide(child)

    def finish(self) -> None:
        """Copy what cannot be linked, and restore the times of directories; call it once, at the end."""
        with self._refusals("a copy in place of a link"):
            self._copies.settle()
        for path, mtime_s in self._directory_times.items():
            with self._refusals(str(path.relative_to(self.root))):
                # A later entry may have put something else in its place, or a link above it.
                if self._is_reached_without_links(path):
                    _set_mtime(path, mtime_s)

    def _placing(self, name: str) -> "_Placing":
        self.check_cancelled()
        self._entries += 1
        if self._entries > self.limits.entries:
            reason = f"more than {self.limits.entries} entries, which no backend has"
            raise ArtifactInvalid(self.uri, reason)
        return _Placing(self, name)

    @contextmanager
    def _refusals(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unplaceable(name, error) from error

    def _locate(self, name: str) -> Path:
        """Where `name` lies, its parents created and resolved, itself not resolved; `root` for no name."""
        above, _, last = name.rpartition("/")
        parent = self._parents.get(above)
        if parent is not None and last not in _NO_NAMES and "\0" not in last:
            return parent / last
        parts = tuple(part for part in name.split("/") if part not in {"", "."})
        if "\0" in name:
            raise self._invalid(name, "a name with a NUL byte")
        if ".." in parts:
            raise self._invalid(name, "a name that leaves the artifact")
        if not parts:
            return self.root
        parent = self._resolve_directory(parts[:-1], name)
        if last == parts[-1]:
            if len(self._parents) >= _KNOWN_PARENTS:
                self._parents.clear()
            self._parents[above] = parent
        return parent / parts[-1]

    def _resolve_directory(self, parts: Sequence[str], name: str) -> Path:
        pending = deque(parts)
        real = self.root
        hops = 0
        while pending:
            part = pending.popleft()
            if part == "..":  # out of a link's text; above the root is the root
                real = real.parent if real != self.root else real
                continue
            candidate = real / part
            try:
                mode = candidate.lstat().st_mode
            except FileNotFoundError:
                candidate.mkdir()
                candidate.chmod(0o755)
                self._claim(candidate)
                real = candidate
                continue
            if stat.S_ISLNK(mode):
                hops += 1
                if hops > _LINK_HOPS:
                    raise self._invalid(name, "too many symlinks on the way")
                target = os.fspath(candidate.readlink())
                if target.startswith("/"):
                    real = self.root
                pending.extendleft(part for part in reversed(target.split("/")) if part not in {"", "."})
            elif stat.S_ISDIR(mode):
                real = candidate
            else:
                raise self._invalid(name, f"{candidate.relative_to(self.root)} is no directory")
        return real

    def _is_reached_without_links(self, path: Path) -> bool:
        current = self.root
        for part in path.relative_to(self.root).parts:
            current /= part
            if not _is_directory(current):
                return False
        return True

    def _create(self, path: Path, create: Callable[[], Created]) -> Created:
        """Run `create`, which fails if something has the name already, and then again without that."""
        if path is self.root:
            raise ArtifactInvalid(self.uri, "an entry that is no directory stands for the whole tree")
        try:
            return create()
        except FileExistsError:
            self._remove(path)
            return create()

    def _remove(self, path: Path) -> None:
        self._copies.forget(path)
        if _is_directory(path):
            self._parents.clear()
            shutil.rmtree(path)
        else:
            if path.is_symlink():
                self._parents.clear()
            path.unlink(missing_ok=True)

    def _hide(self, path: Path) -> None:
        if self._layer <= 1 or path == self.root:
            return
        self._copies.forget(path)
        if path not in self._from_this_layer:
            self._remove(path)
        elif _is_directory(path):
            for child in list(path.iterdir()):
                self._hide(child)

    def _claim(self, path: Path) -> None:
        """Remember that this layer put `path` there, so that its own whiteouts spare it."""
        if self._layer <= 1:
            return
        while path != self.root and path not in self._from_this_layer:
            self._from_this_layer.add(path)
            path = path.parent

    def _count_copy(self, size_bytes: int) -> None:
        self._placing("")  # an entry of its own, so that copies of copies end
        self._count_bytes(size_bytes)

    def _count_bytes(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        if self.size_bytes > self.limits.total_bytes:
            reason = f"it unpacks to more than {self.limits.total_bytes} bytes; raise the limit if intended"
            raise ArtifactInvalid(self.uri, reason)
        if self.room is not None:
            self.room.wrote(size_bytes)

    def _invalid(self, name: str, reason: str) -> ArtifactInvalid:
        return ArtifactInvalid(self.uri, f"entry {name!r}: {reason}")

    def _unplaceable(self, name: str, error: OSError) -> ArtifactInvalid | FileUnwritable:
        if error.errno in {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}:
            shortened = name if len(name) < 200 else name[:200] + "..."
            return self._invalid(shortened, error.strerror or str(error))
        return unwritable(self.root / name.lstrip("/"), error)


class _Placing:
    """Where an entry goes, and what a refusal of the file system means; entered for every single entry."""

    __slots__ = ("_name", "_tree")

    def __init__(self, tree: TreeBuilder, name: str) -> None:
        self._tree = tree
        self._name = name

    def __enter__(self) -> Path:
        try:
            return self._tree._locate(self._name)  # noqa: SLF001 - a part of it
        except OSError as error:
            raise self._tree._unplaceable(self._name, error) from error  # noqa: SLF001

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            raise self._tree._unplaceable(self._name, error) from error  # noqa: SLF001


def _is_directory(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _is_time(mtime_s: float) -> bool:
    return math.isfinite(mtime_s) and 0 <= mtime_s < _LATEST_MTIME_S


def _set_mtime(path: Path, mtime_s: float) -> None:
    if _is_time(mtime_s):
        os.utime(path, (mtime_s, mtime_s), follow_symlinks=False)


def _write_all(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
