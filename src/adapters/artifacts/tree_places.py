"""Where in a tree an entry's name leads, without ever leaving the tree."""

import os
import stat
from collections import deque
from collections.abc import Callable

from ...domain.errors import ArtifactInvalid

_LINK_HOPS = 40  # as Linux's own limit for one path lookup
_LONGEST_NAME = 4096  # PATH_MAX of Linux: no tool could have made a longer one
_MODE = 0o755  # of directories that no entry describes
_KNOWN_DIRECTORIES = 8192
_DEEPEST = 256  # directories; removing a tree takes a call for each, and Python allows a thousand
_TOO_DEEP = f"more than {_DEEPEST} directories deep, which no backend is"
_NO_NAMES = frozenset({"", ".", ".."})


class TreePlaces:
    """Looks names up as if `root` were the root directory, and makes the directories on the way.

    A leading slash is dropped, and a symlink on the way to the last part is followed inside `root`, even
    one whose text is absolute or climbs. A name that itself contains `..` is refused.

    Directories once found are remembered: call `forget` when one, or a link, was removed. `made` hears of
    each directory that is made.
    """

    def __init__(self, root: str, uri: str, made: Callable[[str], None]) -> None:
        self.root = root
        self._uri = uri
        self._made = made
        self._depth = root.count("/")
        self._known = {"": root}  # by the name in front of the last slash

    def find(self, name: str) -> str:
        """The path that `name` stands for, its parents there and no links; `root` for no name.

        Raises:
            ArtifactInvalid: it leads nowhere.
            OSError: the file system refuses a directory on the way.
        """
        above, _, last = name.rpartition("/")
        parent = self._known.get(above)
        if parent is None or last in _NO_NAMES or "\0" in last:
            return self._find(name)
        return f"{parent}/{last}"

    def make(self, directory: str, name: str) -> None:
        """Create `directory`, the entry `name` or one on the way to it.

        Raises:
            ArtifactInvalid: it is too deep in the tree.
            OSError: the file system refuses; FileExistsError where something is.
        """
        if directory.count("/") - self._depth > _DEEPEST:
            raise self._invalid(name if len(name) < 200 else f"{name[:200]}...", _TOO_DEEP)
        os.mkdir(directory)

    def forget(self) -> None:
        """Something on the way to what is known is no longer what it was."""
        self._known = {"": self.root}

    def remember(self, name: str, directory: str) -> None:
        """What lies below `name` is in `directory`."""
        if len(self._known) >= _KNOWN_DIRECTORIES:
            self.forget()
        self._known[name] = directory

    def _find(self, name: str) -> str:
        if "\0" in name:
            raise self._invalid(name, "a name with a NUL byte")
        parts = [part for part in name.split("/") if part not in {"", "."}]
        if ".." in parts:
            raise self._invalid(name, "a name that leaves the artifact")
        if not parts:
            return self.root
        last = parts.pop()
        above = "/".join(parts)
        if len(above) + len(last) > _LONGEST_NAME:
            raise self._invalid(f"{name[:200]}...", "a name longer than any system allows")
        parent = self._directory(above, name)
        written, _, end = name.rpartition("/")
        if end == last:
            self.remember(written, parent)
        return f"{parent}/{last}"

    def _directory(self, above: str, name: str) -> str:
        """The directory `above`, found from the nearest one on its way that is known."""
        end = len(above)
        while (real := self._known.get(above[:end])) is None:
            end = max(above.rfind("/", 0, end), 0)
        while end < len(above):
            start = end + 1 if end else 0
            end = above.find("/", start)
            end = len(above) if end < 0 else end
            real = self._enter(real, above[start:end], name)
            self.remember(above[:end], real)
        return real

    def _enter(self, real: str, part: str, name: str) -> str:
        """The directory `part` of the directory `real`, made where nothing is."""
        candidate = f"{real}/{part}"
        try:
            self.make(candidate, name)
        except FileExistsError:
            mode = os.lstat(candidate).st_mode
            if stat.S_ISDIR(mode):
                return candidate
            if stat.S_ISLNK(mode):
                return self._follow(real, part, name)
            raise self._no_directory(candidate, name) from None
        os.chmod(candidate, _MODE)
        self._made(candidate)
        return candidate

    def _follow(self, real: str, part: str, name: str) -> str:
        """As `_enter`, for a link."""
        pending = deque([part])
        hops = 0
        while pending:
            part = pending.popleft()
            if part == "..":  # out of a link's text; above the root is the root
                real = os.path.dirname(real) if real != self.root else real
                continue
            candidate = f"{real}/{part}"
            try:
                mode = os.lstat(candidate).st_mode
            except FileNotFoundError:
                real = self._enter(real, part, name)
                continue
            if stat.S_ISLNK(mode):
                hops += 1
                if hops > _LINK_HOPS:
                    raise self._invalid(name, "too many symlinks on the way")
                target = os.readlink(candidate)
                if target.startswith("/"):
                    real = self.root
                pending.extendleft(part for part in reversed(target.split("/")) if part not in {"", "."})
            elif stat.S_ISDIR(mode):
                real = candidate
            else:
                raise self._no_directory(candidate, name)
        return real

    def _no_directory(self, candidate: str, name: str) -> ArtifactInvalid:
        return self._invalid(name, f"{os.path.relpath(candidate, self.root)} is no directory")

    def _invalid(self, name: str, reason: str) -> ArtifactInvalid:
        return ArtifactInvalid(self._uri, f"entry {name!r}: {reason}")
