"""Which place in the object cache a staging key names. Pure policy: no file is looked at here."""

from dataclasses import dataclass
from pathlib import Path

from .errors import PathEscapes, WorkerError
from .messages.error_text import go_quote
from .ports.filesystem import RootedPath
from .ports.object_store import StagingKey
from .validate_paths import InvalidKey, place_below

KEY_LIMIT_BYTES = 1024  # S3's


@dataclass(eq=False)
class KeyEscapesCache(WorkerError):
    """A key that leads out of the cache directory, or to the directory itself."""

    key: str

    def __str__(self) -> str:
        return f"key {go_quote(self.key)} escapes cache directory"


def parse_staging_key(key: str) -> StagingKey:
    """`key`, if an object can be stored under it.

    Raises:
        InvalidKey: it is empty, too long, no UTF-8, holds a NUL, or climbs up by `..`.
    """
    if not key:
        raise InvalidKey(key, "it is empty")
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidKey(key, "it is not valid UTF-8") from error
    if size_bytes > KEY_LIMIT_BYTES:
        reason = (
            f"it has {size_bytes} bytes, an object store takes {KEY_LIMIT_BYTES}; shorten the model's name"
        )
        raise InvalidKey(key, reason)
    if "\0" in key:
        raise InvalidKey(key, "it holds a NUL byte")
    if ".." in key.split("/"):
        raise InvalidKey(key, "it holds `..`; name the object as it is stored")
    if key.endswith("/"):
        raise InvalidKey(key, "it ends in `/` and names a directory; name a file in it")
    return StagingKey(key)


def cache_place(key: str, root: Path) -> RootedPath:
    """The place of the object `key` below the cache directory `root`; never `root` itself.

    Leading and doubled slashes count for nothing, so several keys may have one place.
    Source: LocalAI core/services/storage/file_manager.go.

    Raises:
        KeyEscapesCache: `..` leads out of the cache, or nothing is left of the key.
        InvalidKey: no object can have this key, or no file this name.
    """
    try:
        place = place_below(root, key, key=key)
    except PathEscapes as error:
        raise KeyEscapesCache(key) from error
    if not place.relative.name:
        raise KeyEscapesCache(key)
    parse_staging_key(key)
    return place
