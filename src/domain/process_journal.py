"""The journal of backend processes: what the next worker needs to find them again after a crash (D5)."""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from .backend import MalformedReplicaKey, ReplicaKey
from .errors import FileUnreadable, FileUnwritable, MalformedMessage
from .file_names import is_private_name
from .keyed_locks import KeyedLocks
from .messages.document import Fields, decode_object
from .messages.reading import read_bool, read_int64, read_text
from .ports.filesystem import FileKind, FileSystem
from .ports.processes import ProcessIdentity

log = logging.getLogger(__name__)

_VERSION = 1
_LIMIT_BYTES = 64 * 1024  # the longest record, with paths of 4 KiB and a model id of any sane length
_SUFFIX = ".json"
_ASIDE = ".unreadable"
_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRecord:
    """One backend process as it was started; `ready`: it has answered Health once."""

    key: ReplicaKey
    backend: str
    run_file: Path
    directory_inode: int
    port: int
    process: ProcessIdentity
    mark: str = ""
    ready: bool = False

    def to_bytes(self) -> bytes:
        """The record as a file: one JSON object, which the keeper reads too."""
        fields = {
            "version": _VERSION,
            "key": str(self.key),
            "backend": self.backend,
            "run_file": str(self.run_file),
            "directory_inode": self.directory_inode,
            "port": self.port,
            **asdict(self.process),
            "mark": self.mark,
            "ready": self.ready,
        }
        return json.dumps(fields, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The record that `content` holds.

        Raises:
            MalformedMessage: it is not one of this version, whole and sound.
        """
        fields = decode_object(content)
        if (version := read_int64(fields, "version")) != _VERSION:
            raise MalformedMessage(f'field "version": want {_VERSION}, got {version}')
        try:
            key = ReplicaKey.parse(_required(fields, "key"))
        except MalformedReplicaKey as error:
            raise MalformedMessage(f'field "key": {error}') from error
        return cls(
            key=key,
            backend=_required(fields, "backend"),
            run_file=_absolute(fields, "run_file"),
            directory_inode=_number(fields, "directory_inode", 0, 2**63 - 1),
            port=_number(fields, "port", 1, _HIGHEST_PORT),
            process=ProcessIdentity(
                pid=_number(fields, "pid", 2, 2**31 - 1),
                started=_number(fields, "started", 0, 2**63 - 1),
                boot=_required(fields, "boot"),
            ),
            mark=read_text(fields, "mark"),
            ready=read_bool(fields, "ready"),
        )


@dataclass(frozen=True)
class ProcessJournal:
    """One small file for each process in `directory`, written whole and named after its process id.

    What is asked for one process happens in the order in which it is asked.

    Writing never fails a start or a stop: what could not be noted is logged, and such a process is ended
    after a crash instead of taken over.
    """

    filesystem: FileSystem
    directory: Path
    _busy: KeyedLocks[int] = field(default_factory=KeyedLocks)

    async def keep(self, record: JournalRecord) -> None:
        """Note `record`, in place of an older one of the same process id."""
        path = self._path(record.process.pid)
        try:
            async with self._busy.hold(record.process.pid):
                await self.filesystem.make_directory(self.directory, mode=0o700)
                await self.filesystem.write(path, record.to_bytes(), mode=0o600)
        except FileUnwritable as error:
            log.warning(
                "backend not journaled, a crash of this worker would end it: replica=%s pid=%d error=%s",
                record.key,
                record.process.pid,
                error,
            )

    async def forget(self, pid: int) -> None:
        """Drop the record of `pid`, whose process group is gone; none is fine."""
        try:
            async with self._busy.hold(pid):
                await self.filesystem.remove_tree(self._path(pid))
        except FileUnwritable as error:
            log.warning("journal record not removed, the next worker will: pid=%d error=%s", pid, error)

    async def read(self) -> tuple[JournalRecord, ...]:
        """Every record that can be read, by process id; half-written files of a crash are removed.

        One that cannot be read is warned about and kept aside as `<name>.unreadable`: never an error.
        """
        if await self.filesystem.stat(self.directory) is None:
            return ()
        try:
            entries = await self.filesystem.list_directory(self.directory)
        except FileUnreadable as error:
            log.warning("journal unreadable, its backends are ended where they can be found: error=%s", error)
            return ()
        records = []
        for entry in entries:
            path = self.directory / entry.name
            if is_private_name(entry.name):
                await self._remove(path)
            elif entry.kind is not FileKind.DIRECTORY and entry.name.endswith(_SUFFIX):
                record = await self._read(path)
                records += [record] if record else []
        return tuple(sorted(records, key=lambda record: record.process.pid))

    async def _read(self, path: Path) -> JournalRecord | None:
        try:
            content = await self.filesystem.read(path, limit_bytes=_LIMIT_BYTES)
        except FileUnreadable as error:
            log.warning("journal record unreadable, left where it is: error=%s", error)
            return None
        try:
            record = JournalRecord.from_bytes(content)
        except MalformedMessage as error:
            aside = path.with_name(path.name + _ASIDE)
            log.warning("journal record unreadable, kept as %s: %s", aside, error.reason)
            try:
                await self.filesystem.write(aside, content, mode=0o600)
            except FileUnwritable as failure:
                log.warning("journal record not kept aside, left where it is: error=%s", failure)
            else:
                await self._remove(path)
            return None
        if path != self._path(record.process.pid):
            log.warning("journal record ignored, it is not of the process its name says: file=%s", path)
            return None
        return record

    async def _remove(self, path: Path) -> None:
        try:
            await self.filesystem.remove_tree(path)
        except FileUnwritable as error:
            log.warning("journal: %s", error)

    def _path(self, pid: int) -> Path:
        return self.directory / f"{pid}{_SUFFIX}"


def _required(fields: Fields, name: str) -> str:
    text = read_text(fields, name)
    if not text:
        raise MalformedMessage(f'field "{name}": want a text, got nothing')
    return text


def _absolute(fields: Fields, name: str) -> Path:
    path = Path(_required(fields, name))
    if not path.is_absolute():
        raise MalformedMessage(f'field "{name}": want an absolute path, got "{path}"')
    return path


def _number(fields: Fields, name: str, low: int, high: int) -> int:
    number = read_int64(fields, name)
    if not low <= number <= high:
        raise MalformedMessage(f'field "{name}": want {low} to {high}, got {number}')
    return number
