"""What the content of a received file hashes to, known without reading it again where that is safe."""

import hashlib
import logging
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from anyio import CancelScope, Event

from .errors import FileUnreadable, FileUnwritable, PathEscapes
from .file_names import TARGET_SIDECAR_SUFFIX, sidecar_of, sidecar_subject
from .keyed_locks import KeyedLocks
from .ports.filesystem import FileKind, FileStat, FileSystem, IncomingFile, RootedPath

log = logging.getLogger(__name__)

SIDECAR_MODE = 0o640  # as the Go worker writes it
SIDECAR_LIMIT_BYTES = 128  # 64 digits and some white space; anything longer is no sidecar
REMEMBERED_FILES = 10_000  # some 4 MB; the least recently used is dropped, its sidecar stays

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


def normal_sha256(text: str) -> str | None:
    """`text` as 64 lower-case hex digits, white space around it dropped; None when it is no such hash."""
    hex_digits = text.strip().lower()
    return hex_digits if _HASH.fullmatch(hex_digits) else None


@dataclass(frozen=True, slots=True)
class _Identity:
    """Which content a path held when it was hashed; any rewrite changes at least one of the three."""

    inode: int
    size_bytes: int
    modified_ns: int


@dataclass
class FileHashes:
    """Hashes of files, by path and identity, with a plain sidecar `<file>.sha256` beside each.

    A file hashed or received in this life is remembered and its sidecar never asked again: a copy that
    keeps an old modification time cannot pass for the content before it. The sidecar of any other file
    is trusted when it is no older than the file, so that after a restart, or on a volume a Go worker
    wrote, nothing is read twice. Everything else is hashed, once, however many ask at the same time.

    Source of the sidecar's form and rule: LocalAI core/services/nodes/file_transfer_server.go.
    """

    filesystem: FileSystem
    _known: OrderedDict[Path, tuple[_Identity, str]] = field(default_factory=OrderedDict)
    _running: dict[Path, Event] = field(default_factory=dict)
    # Publishing a file and writing its sidecar is one step to everyone else who reads or writes either.
    _changes: KeyedLocks[Path] = field(default_factory=KeyedLocks)

    async def of(self, place: RootedPath, stat: FileStat) -> str | None:
        """The hash of the regular file that `stat` describes; None when it changed before we were done.

        Raises:
            FileUnreadable, PathEscapes: as the file system says.
        """
        while True:
            known = self._recall(place, stat)
            if known is not None:
                return known
            running = self._running.get(place.path)
            if running is None:
                break
            await running.wait()
        done = self._running[place.path] = Event()
        try:
            return await self._from_sidecar(place, stat) or await self._from_content(place, stat)
        finally:
            del self._running[place.path]
            done.set()

    async def known(self, place: RootedPath, stat: FileStat) -> str | None:
        """The hash of the regular file that `stat` describes if it can be told without reading the file."""
        if stat.kind is not FileKind.FILE:
            return None
        return self._recall(place, stat) or await self._from_sidecar(place, stat)

    async def learn(self, place: RootedPath, stat: FileStat, sha256: str) -> None:
        """Remember the hash of the regular file that `stat` describes, which somebody else made sure of."""
        async with self._changes.hold(place.path):
            if await self._is_still(place, stat):
                self._remember(place, stat, sha256)
                await self._write_sidecar(place, sha256)

    async def publish(self, place: RootedPath, incoming: IncomingFile) -> None:
        """Publish `incoming` at `place`, remember its hash and write the sidecar.

        Raises:
            NoSpace, FileUnwritable: the old file and its sidecar are as they were.
        """
        sha256 = await incoming.sha256()
        async with self._changes.hold(place.path):
            stat = await incoming.publish()
            self._remember(place, stat, sha256)
            await self._write_sidecar(place, sha256)
            if incoming.has_leftovers:
                await self._remove_target_sidecar(place)

    async def publish_sidecar(self, place: RootedPath, incoming: IncomingFile) -> bool:
        """Publish `incoming` at `place`, a sidecar's name, if it says the truth; else False, nothing happens.

        The truth is, byte for byte, what we would write there ourselves. A frontend keeps such sidecars
        beside its own models and, walking the directory of an option, uploads them with the rest: refusing
        a true one would cost the model that option. Source: LocalAI core/services/nodes/router.go.

        Raises:
            NoSpace, FileUnwritable, FileUnreadable: as the file system says; nothing is published.
        """
        name = place.relative.name
        if name.endswith(TARGET_SIDECAR_SUFFIX):
            return False  # to a Go worker on this volume the whole file would be a partial one
        subject = RootedPath(place.root, place.relative.with_name(sidecar_subject(name)))
        try:
            stat = await self.filesystem.locate(subject)
        except PathEscapes:
            return False
        if stat is None or stat.kind is not FileKind.FILE:
            return False
        truth = await self.of(subject, stat)
        if truth is None or await incoming.sha256() != hashlib.sha256(truth.encode()).hexdigest():
            return False
        async with self._changes.hold(subject.path):
            if not await self._is_still(subject, stat):
                return False
            await incoming.publish()
        return True

    async def _from_sidecar(self, place: RootedPath, stat: FileStat) -> str | None:
        """The hash kept beside the file, if it may be trusted."""
        sidecar = sidecar_of(place)
        if sidecar is None or place.path in self._known:
            return None
        async with self._changes.hold(place.path):
            if not await self._is_still(place, stat):
                return None
            sha256 = await self._read_sidecar(sidecar, not_before_ns=stat.modified_ns)
        if sha256 is not None:
            self._remember(place, stat, sha256)
        return sha256

    async def _from_content(self, place: RootedPath, stat: FileStat) -> str | None:
        outgoing = await self.filesystem.open_outgoing(place)
        if outgoing is None:
            return None
        try:
            sha256 = await outgoing.sha256()
        finally:
            with CancelScope(shield=True):
                await outgoing.close()
        async with self._changes.hold(place.path):
            if not await self._is_still(place, stat):
                return None
            self._remember(place, stat, sha256)
            await self._write_sidecar(place, sha256)
        return sha256

    async def _is_still(self, place: RootedPath, stat: FileStat) -> bool:
        now = await self.filesystem.locate(place)
        return now is not None and _identity(now) == _identity(stat)

    async def _read_sidecar(self, sidecar: RootedPath, *, not_before_ns: int) -> str | None:
        try:
            stat = await self.filesystem.locate(sidecar)
            if stat is None or stat.kind is not FileKind.FILE or stat.size_bytes > SIDECAR_LIMIT_BYTES:
                return None
            if stat.modified_ns < not_before_ns:
                return None
            content = await self._content_of(sidecar)
        except (FileUnreadable, PathEscapes) as error:
            log.warning("hash file not used: %s", error)
            return None
        return normal_sha256(content.decode("ascii", "replace"))

    async def _content_of(self, place: RootedPath) -> bytes:
        outgoing = await self.filesystem.open_outgoing(place)
        if outgoing is None:
            return b""
        try:
            return b"".join([chunk async for chunk in outgoing.chunks()])
        finally:
            with CancelScope(shield=True):
                await outgoing.close()

    async def _write_sidecar(self, place: RootedPath, sha256: str) -> None:
        """Write the sidecar; that it cannot be written costs a later reader time, never correctness."""
        sidecar = sidecar_of(place)
        if sidecar is None:
            return
        try:
            await self.filesystem.write_note(sidecar, sha256.encode(), mode=SIDECAR_MODE)
        except (FileUnwritable, PathEscapes) as error:
            log.warning("hash file not written: %s", error)

    async def _remove_target_sidecar(self, place: RootedPath) -> None:
        """A Go worker on this volume would take the whole file for the part it once had of another."""
        try:
            name = place.relative.name + TARGET_SIDECAR_SUFFIX
            await self.filesystem.remove_file(RootedPath(place.root, place.relative.with_name(name)))
        except (FileUnwritable, PathEscapes) as error:
            log.warning("note of a partial file not removed: %s", error)

    def _recall(self, place: RootedPath, stat: FileStat) -> str | None:
        known = self._known.get(place.path)
        if known is None or known[0] != _identity(stat):
            return None
        self._known.move_to_end(place.path)
        return known[1]

    def _remember(self, place: RootedPath, stat: FileStat, sha256: str) -> None:
        self._known[place.path] = (_identity(stat), sha256)
        self._known.move_to_end(place.path)
        if len(self._known) > REMEMBERED_FILES:
            self._known.popitem(last=False)


def _identity(stat: FileStat) -> _Identity:
    return _Identity(stat.inode, stat.size_bytes, stat.modified_ns)
