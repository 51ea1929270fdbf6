"""What the cache knows of its files: which version of which object each holds, and when it was wanted."""

import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio

from .errors import FileUnreadable, FileUnwritable
from .ports.filesystem import FileStat, FileSystem

log = logging.getLogger(__name__)

FORMAT = 1
RECORDS_LIMIT_BYTES = 256 * 1024 * 1024  # a million files
FILE_NAME = "object-cache.json"


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """One cached file. `settled`: it would survive a power cut, so the record may be kept on disk."""

    key: str
    version: str
    inode: int
    size_bytes: int
    modified_ns: int
    used_s: float
    settled: bool = True

    def describes(self, stat: FileStat, key: str) -> bool:
        """Whether the file is still the one that was fetched for `key`: nobody wrote to it since."""
        same = (self.inode, self.size_bytes, self.modified_ns) == (
            stat.inode,
            stat.size_bytes,
            stat.modified_ns,
        )
        return same and self.key == key

    def to_json(self) -> str:
        """All fields by name."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__})


@dataclass
class CacheRecords:
    """The records of one cache, by path relative to it; kept in a file of the state directory.

    Losing them costs time, never right bytes: a file without a record is compared with its object by hash, or
    fetched again.
    """

    filesystem: FileSystem
    directory: Path
    _records: dict[str, CacheRecord] = field(default_factory=dict)
    _lines: dict[str, str] = field(default_factory=dict)  # of settled records, as they are written
    _changed: bool = False
    _news: anyio.Event = field(default_factory=anyio.Event)

    async def load(self) -> None:
        """Read the records of an earlier life; what cannot be read counts as lost, with a warning."""
        path = self.directory / FILE_NAME
        if await self.filesystem.stat(path) is None:
            return
        try:
            content = json.loads(await self.filesystem.read(path, limit_bytes=RECORDS_LIMIT_BYTES))
            if content["format"] == FORMAT:
                for name, fields in content["files"].items():
                    self.put(name, CacheRecord(**fields))
                self._changed, self._news = False, anyio.Event()
        except (FileUnreadable, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("the records of the object cache are lost, files are compared by hash: %s", error)

    async def save(self) -> None:
        """Write what changed since the last time; a failure is told and costs a later life time only."""
        self._news = anyio.Event()
        if not self._changed:
            return
        self._changed = False
        files = ",\n".join(self._lines.values())
        content = f'{{"format": {FORMAT}, "files": {{{files}}}}}'.encode()
        try:
            await self.filesystem.make_directory(self.directory)
            await self.filesystem.write(self.directory / FILE_NAME, content, mode=0o640)
        except FileUnwritable as error:
            log.warning("the records of the object cache cannot be kept: %s", error)
        except anyio.get_cancelled_exc_class():
            self._changed = True  # the last saving of a life writes what this one may not have written
            raise

    @property
    def has_news(self) -> bool:
        """Whether something came, was used or went since the last saving."""
        return self._news.is_set()

    async def news(self) -> None:
        """Return once it `has_news`."""
        await self._news.wait()

    def get(self, name: str) -> CacheRecord | None:
        """The record of the file `name`."""
        return self._records.get(name)

    def put(self, name: str, record: CacheRecord) -> None:
        """Note what `name` holds now."""
        self._records[name] = record
        self._news.set()
        if record.settled:
            # Encoded once: all records at every saving would hold up the event loop for seconds.
            self._lines[name] = f"{json.dumps(name)}: {record.to_json()}"
            self._changed = True
        else:
            self._changed |= self._lines.pop(name, None) is not None

    def used(self, name: str, now_s: float) -> None:
        """Note that `name` was wanted."""
        self.put(name, replace(self._records[name], used_s=now_s))

    def settled(self, name: str, record: CacheRecord) -> None:
        """The file that `record` describes survives a power cut from now on."""
        now = self._records.get(name)
        if now is not None and replace(now, used_s=record.used_s) == record:
            self.put(name, replace(now, settled=True))

    def forget(self, name: str) -> None:
        """The file `name` is gone, or soon will be."""
        self._records.pop(name, None)
        self._news.set()
        self._changed |= self._lines.pop(name, None) is not None

    def names(self) -> tuple[str, ...]:
        """Every file with a record."""
        return tuple(self._records)
