"""Which place on disk a staging key names. Pure policy: no file is looked at here."""

import posixpath
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import PathEscapes, WorkerError
from .file_names import NAME_LIMIT_BYTES, is_private_name
from .ports.filesystem import RootedPath

PATH_LIMIT_BYTES = 4095  # Linux PATH_MAX less its NUL: a longer path no backend could open


@dataclass(frozen=True, slots=True)
class FileRoots:
    """The three directories that staging keys lead into; absolute paths."""

    models: Path
    data: Path
    staging: Path


@dataclass(eq=False)
class KeyRequired(WorkerError):
    """A request for a file names none."""

    def __str__(self) -> str:
        return "key is required"


@dataclass(eq=False)
class InvalidKey(WorkerError):
    """A staging key that no file can have."""

    key: str
    reason: str

    def __str__(self) -> str:
        shown = self.key if len(self.key) <= 100 else self.key[:100] + "..."
        return f"invalid key {shown!a}: {self.reason}"


def locate_key(key: str, roots: FileRoots) -> RootedPath:
    """The place that `key` (percent-decoded, once) names; always below one of `roots`.

    `models/<rel>` lies in the models directory, `data/<rel>` in data, everything else in staging under
    the whole key. Leading, doubled and trailing slashes count for nothing; `..` is resolved by name
    alone, and what climbs out is refused, even if it would come back. The root itself is the place of
    a bare `models/`. Symlinks are the file system's business.

    Source: LocalAI core/services/nodes/file_transfer_server.go.

    Raises:
        KeyRequired: `key` is empty.
        InvalidKey: a NUL, text that is not UTF-8, a name or path too long, or a name kept for our own use.
        PathEscapes: `..` leads out of the directory.
    """
    if not key:
        raise KeyRequired
    root, rest = _root_of(key, roots)
    return place_below(root, rest, key=key)


def place_below(root: Path, rest: str, *, key: str) -> RootedPath:
    """The place that `rest`, the part of `key` that counts, names below `root`; the rules of `locate_key`.

    Raises:
        InvalidKey, PathEscapes: see `locate_key`.
    """
    _check_text(key)
    parts: list[str] = []
    for part in rest.split("/"):
        if part == "..":
            if not parts:
                raise _escape(root, rest)
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    place = RootedPath(root, PurePosixPath(*parts))
    _check_names(key, place)
    return place


def _root_of(key: str, roots: FileRoots) -> tuple[Path, str]:
    if key.startswith("models/"):
        return roots.models, key.removeprefix("models/")
    if key.startswith("data/"):
        return roots.data, key.removeprefix("data/")
    return roots.staging, key


def _escape(root: Path, rest: str) -> PathEscapes:
    joined = posixpath.join(root, rest.lstrip("/"))
    leads_to = posixpath.normpath(joined)
    # One that would come back in again is shown as it was sent: "/models/x is outside /models" helps nobody.
    return PathEscapes(joined if Path(leads_to).is_relative_to(root) else leads_to, root)


def _check_text(key: str) -> None:
    if "\0" in key:
        raise InvalidKey(key, "it holds a NUL byte")
    try:
        key.encode("utf-8")
    except UnicodeEncodeError as error:
        # Such a file could be written, but the answer is JSON: its path would reach the backend garbled.
        raise InvalidKey(key, "it is not valid UTF-8") from error


def _check_names(key: str, place: RootedPath) -> None:
    for part in place.relative.parts:
        size_bytes = len(part.encode("utf-8"))
        if size_bytes > NAME_LIMIT_BYTES:
            reason = f"a name in it has {size_bytes} bytes, file systems take {NAME_LIMIT_BYTES}"
            raise InvalidKey(key, reason)
        if is_private_name(part):
            raise InvalidKey(key, "hidden names ending in .incoming are the worker's own")
    size_bytes = len(str(place.path).encode("utf-8", "surrogateescape"))
    if size_bytes > PATH_LIMIT_BYTES:
        reason = (
            f"its path has {size_bytes} bytes, the system takes {PATH_LIMIT_BYTES}; shorten the model name"
        )
        raise InvalidKey(key, reason)
