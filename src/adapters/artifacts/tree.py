"""Building a directory tree from entries nobody vouches for, without ever leaving the directory."""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from ...domain.errors import ArtifactInvalid, FileUnwritable
from .blobs.room import Room
from .directory_times import DirectoryTimes, is_directory, is_time, set_time
from .filing import unwritable
from .link_copies import LinkCopies, is_refused
from .tree_layers import LayerClaims
from .tree_limits import Allowance, TreeLimits
from .tree_places import TreePlaces
from .writeback import begin_writeback

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITEBACK_BYTES = 1 << 20  # of one file; smaller ones the system gathers better by itself
_UNNAMEABLE = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ})


class TreeBuilder:
    """Places files, directories and links below `root`, an existing directory nobody else writes to.

    Names are looked up as `TreePlaces` does, so nothing is written, linked or touched through a link that
    leads out. Symlinks keep their text, whatever it is (Python environments need absolute ones). On
    a file system without links, copies take their place.

    Of a mode only the nine permission bits count, and directories stay usable by their owner, so that
    the tree can be replaced later. Extended attributes are not taken over.

    All methods block, and raise ArtifactInvalid for a hostile or impossible entry or a limit passed,
    NoSpace or FileUnwritable when the file system refuses.

    Paths are text in here, and each entry takes as few calls as it can: images have many small files.
    """

    def __init__(
        self,
        root: Path,
        uri: str,
        limits: TreeLimits,
        check_cancelled: Callable[[], None],
        room: Room | None = None,
    ) -> None:
        self.root = root.resolve()
        self.limits = limits
        self._root = os.fspath(self.root)
        self._uri = uri
        self._allowance = Allowance(limits, uri, check_cancelled, room)
        self._claims = LayerClaims(self._root)
        self._places = TreePlaces(self._root, uri, made=self._claims.claim)
        self._copies = LinkCopies(self.root, self._count_copy, self._places.make)
        self._times = DirectoryTimes(self._root)

    @property
    def size_bytes(self) -> int:
        """Content of all files written, also of those replaced by a later layer."""
        return self._allowance.size_bytes

    def begin_layer(self) -> None:
        """What `hide` and `hide_children` remove from now on is what lies there at this moment."""
        self._claims.begin_layer()

    def add_directory(self, name: str, *, mode: int, mtime_s: float) -> None:
        """Create a directory, or take over mode and time for one that is there."""
        self._allowance.take_entry()
        try:
            path = self._places.find(name)
            if path == self._root:
                return
            try:
                self._places.make(path, name)
            except FileExistsError:
                if not is_directory(path):
                    self._remove(path)
                    os.mkdir(path)
            os.chmod(path, (mode & 0o777) | 0o700)
        except OSError as error:
            raise self._unplaceable(name, error) from error
        self._places.remember(name, path)
        self._times.note(path, mtime_s)
        self._claims.claim(path)

    def add_file(self, name: str, *, mode: int, mtime_s: float, chunks: Iterable[bytes | memoryview]) -> None:
        """Write a regular file, replacing whatever has this name."""
        self._allowance.take_entry()
        try:
            path = self._places.find(name)
            try:
                descriptor = os.open(path, _NEW_FILE, 0o600)
            except FileExistsError:
                self._remove(path)
                descriptor = os.open(path, _NEW_FILE, 0o600)
            try:
                waiting_bytes = 0
                for chunk in chunks:
                    size_bytes = len(chunk)
                    self._allowance.take_bytes(size_bytes)
                    written = os.write(descriptor, chunk)
                    if written < size_bytes:
                        _write_all(descriptor, memoryview(chunk)[written:])
                    waiting_bytes += size_bytes
                    if waiting_bytes >= _WRITEBACK_BYTES:
                        begin_writeback(descriptor)
                        waiting_bytes = 0
                os.fchmod(descriptor, mode & 0o777)
                if is_time(mtime_s):
                    os.utime(descriptor, (mtime_s, mtime_s))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unplaceable(name, error) from error
        self._claims.claim(path)

    def add_symlink(self, name: str, target: str, *, mtime_s: float) -> None:
        """Create a symlink with exactly this text, replacing whatever has this name."""
        self._allowance.take_entry()
        try:
            path = self._places.find(name)
            if not target or "\0" in target:
                raise self._invalid(name, "a symlink without a target")
            try:
                self._create(path, lambda: os.symlink(target, path))
            except OSError as error:
                if not is_refused(error):
                    raise
                self._remove(path)
                self._copies.note(path, target)
                return
            set_time(path, mtime_s)
        except OSError as error:
            raise self._unplaceable(name, error) from error
        self._claims.claim(path)

    def add_hardlink(self, name: str, target: str) -> None:
        """Give the file `target`, a name in the same tree, a second name."""
        self._allowance.take_entry()
        try:
            path, source = self._places.find(name), self._places.find(target)
            if source.startswith(f"{path}/") or not _is_file_or_link(source):
                raise self._invalid(name, f"a hard link to {target!r}, which is no file of this artifact")
            if source == path:
                return
            try:
                self._create(path, lambda: os.link(source, path, follow_symlinks=False))
            except OSError as error:
                if not is_refused(error):
                    raise
                self._allowance.take_bytes(os.lstat(source).st_size)
                self._create(path, lambda: shutil.copy2(source, path, follow_symlinks=False))
        except OSError as error:
            raise self._unplaceable(name, error) from error
        self._claims.claim(path)

    def hide(self, name: str) -> None:
        """Remove what earlier layers put at `name` (a whiteout); what this layer put there stays."""
        self._allowance.take_entry()
        try:
            self._hide(self._places.find(name))
        except OSError as error:
            raise self._unplaceable(name, error) from error

    def hide_children(self, name: str) -> None:
        """Remove what earlier layers put into the directory `name` (an opaque whiteout)."""
        self._allowance.take_entry()
        try:
            path = self._places.find(name)
            if is_directory(path):
                self._hide_children(path)
        except OSError as error:
            raise self._unplaceable(name, error) from error

    def finish(self) -> None:
        """Copy what cannot be linked, and restore the times of directories; call it once, at the end."""
        name = "a copy in place of a link"
        try:
            self._copies.settle()
            for path, mtime_s in self._times.pending():
                name = os.path.relpath(path, self._root)
                set_time(path, mtime_s)
        except OSError as error:
            raise self._unplaceable(name, error) from error

    def _create(self, path: str, create: Callable[[], object]) -> None:
        """Run `create`, which fails if something has the name already, and then again without that."""
        try:
            create()
        except FileExistsError:
            self._remove(path)
            create()

    def _remove(self, path: str) -> None:
        if path == self._root:
            raise ArtifactInvalid(self._uri, "an entry that is no directory stands for the whole tree")
        self._copies.forget(path)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            self._places.forget()
            shutil.rmtree(path)
        else:
            if stat.S_ISLNK(mode):
                self._places.forget()
            os.unlink(path)

    def _hide(self, path: str) -> None:
        if self._claims.is_first_layer or path == self._root:
            return
        self._copies.forget(path)
        if not self._claims.is_claimed(path):
            self._remove(path)
        elif is_directory(path):
            self._hide_children(path)

    def _hide_children(self, path: str) -> None:
        for child in os.listdir(path):
            self._hide(f"{path}/{child}")

    def _count_copy(self, size_bytes: int) -> None:
        self._allowance.take_entry()  # an entry of its own, so that copies of copies end
        self._allowance.take_bytes(size_bytes)

    def _invalid(self, name: str, reason: str) -> ArtifactInvalid:
        return ArtifactInvalid(self._uri, f"entry {name!r}: {reason}")

    def _unplaceable(self, name: str, error: OSError) -> ArtifactInvalid | FileUnwritable:
        if error.errno in _UNNAMEABLE:
            shortened = name if len(name) < 200 else name[:200] + "..."
            return self._invalid(shortened, error.strerror or str(error))
        return unwritable(self.root / name.lstrip("/"), error)


def _is_file_or_link(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _write_all(descriptor: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(descriptor, rest) :]
