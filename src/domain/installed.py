"""The backends on this node's disk: listed, found by name, told apart."""

import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .backend import UnsafeBackendName, parse_backend_name
from .backend_metadata import METADATA_FILE, METADATA_LIMIT_BYTES, BackendMetadata
from .capability import prefer
from .errors import FileUnreadable, WorkerError
from .ports.filesystem import FileKind, FileSystem

log = logging.getLogger(__name__)

RUN_FILE = "run.sh"
_FILES = (METADATA_FILE, RUN_FILE)
# What upstream installs and upgrades leave behind when they are killed; ours begin with a dot.
_LEFTOVERS = (".install-tmp", ".install-backup", ".upgrade-tmp", ".backup")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledBackend:
    """One name under which a backend can be started.

    Attributes:
        name: a directory's name, a meta backend's or an alias.
        run_file: the program; for a meta backend or alias it lies in another backend's directory.
        is_runnable: the program is there. Only a meta backend can be listed without it.
        is_system: it came with the machine: no metadata, and it cannot be deleted.
        metadata: of the directory that was read, for an alias that of the backend chosen.
    """

    name: str
    run_file: Path
    is_runnable: bool = True
    is_system: bool = False
    is_meta: bool = False
    metadata: BackendMetadata = field(default_factory=BackendMetadata)

    @property
    def is_other_name(self) -> bool:
        """Whether the directory behind it goes by another name: an alias."""
        return bool(self.metadata.name) and self.metadata.name != self.name


@dataclass
class InstalledBackends:
    """Knows `backends_path` and `system_path` as they are: read anew when they have changed since.

    A missing directory is an empty one. A backend whose metadata.json cannot be read is left out with a
    warning, as are links, hidden names and the leftovers of interrupted upstream installs.
    Source: LocalAI core/gallery/backends.go, ListSystemBackends.

    Every method raises FileUnreadable when one of the two directories is there but cannot be read.
    """

    filesystem: FileSystem
    backends_path: Path
    system_path: Path
    capability: str
    _seen: "tuple[tuple[Hashable, Hashable], Mapping[str, InstalledBackend]] | None" = None
    _rows: "tuple[Mapping[str, InstalledBackend], tuple[InstalledBackend, ...]] | None" = None

    async def rows(self) -> tuple[InstalledBackend, ...]:
        """What backend.list tells, sorted by name: everything but aliases.

        An alias hides the meta backend of the same name, as it does upstream.
        """
        found = await self.scan()
        if self._rows is None or self._rows[0] is not found:
            rows = tuple(found[name] for name in sorted(found) if not found[name].is_other_name)
            self._rows = (found, rows)
        return self._rows[1]

    async def find(self, name: str) -> InstalledBackend | None:
        """The backend that `name` starts, or None.

        `name` may be qualified (`gallery@name`), `/` in it reads as `__`, and letter case counts only
        where two backends differ in nothing else. A plain program named like the backend, in
        `backends_path`, `system_path` or a directory of that name, is found last.
        Source: LocalAI core/services/worker/install.go, findBackend.
        """
        for fresh in (False, True):  # what somebody put there a moment ago is not fetched from a gallery
            listed = named(await self.scan(fresh=fresh), name)
            if listed is not None and listed.is_runnable:
                return listed
        return await self._plain_program(local_name(name))

    async def identity(self, name: str) -> frozenset[str]:
        """All names that a process of the backend `name` may be recorded under; always `name` itself.

        Only that one entry's metadata counts: backends that share an alias are not one backend.
        """
        known = {name, local_name(name)}
        try:
            listed = named(await self.scan(), name)
        except FileUnreadable as error:
            log.warning("backends cannot be listed, only the name itself is known: %s", error)
            listed = None
        if listed is not None:
            known |= {listed.name, listed.metadata.name, listed.metadata.alias} - {""}
        return frozenset(known)

    async def scan(self, *, fresh: bool = False) -> Mapping[str, InstalledBackend]:
        """Every name that can be listed: directories, meta backends and aliases, users' over the system's.

        The same object as long as nothing has changed; `fresh` as in `FileSystem.fingerprint`.
        """
        marks = (
            await self.filesystem.fingerprint(self.system_path, files=(RUN_FILE,), fresh=fresh),
            await self.filesystem.fingerprint(self.backends_path, files=_FILES, fresh=fresh),
        )
        if self._seen is None or self._seen[0] != marks:
            self._seen = (marks, await self._scan())
        return self._seen[1]

    async def _scan(self) -> Mapping[str, InstalledBackend]:
        names: dict[str, InstalledBackend] = {}
        for directory in await self._directories(self.system_path):
            run_file = self.system_path / directory / RUN_FILE
            if await self._is_file(run_file):
                names[directory] = InstalledBackend(name=directory, run_file=run_file, is_system=True)
        candidates: dict[str, list[InstalledBackend]] = {}
        for directory, metadata in (await self.metadata()).items():
            run_file = self.backends_path / directory / RUN_FILE
            if await self._is_file(run_file):
                backend = InstalledBackend(name=directory, run_file=run_file, metadata=metadata)
                names[directory] = backend
                if metadata.alias:
                    candidates.setdefault(metadata.alias, []).append(backend)
            if metadata.meta_backend_for:
                name = metadata.name or directory
                run_file = self.backends_path / metadata.meta_backend_for / RUN_FILE
                is_runnable = await self._is_file(run_file)
                names[name] = InstalledBackend(
                    name=name, run_file=run_file, is_runnable=is_runnable, is_meta=True, metadata=metadata
                )
        for alias, backends in candidates.items():
            preferred = prefer(self.capability, [backend.name for backend in backends])
            chosen = next(backend for backend in backends if backend.name == preferred)
            names[alias] = replace(chosen, name=alias)
        return names

    async def metadata(self) -> Mapping[str, BackendMetadata]:
        """What each directory below `backends_path` says about itself, by directory, in their order.

        One that cannot be read, or points to what cannot be a directory, is left out with a warning.
        """
        found: dict[str, BackendMetadata] = {}
        for directory in await self._directories(self.backends_path):
            try:
                metadata = await self._metadata(directory)
                parse_backend_name(metadata.meta_backend_for or directory)
            except WorkerError as error:
                log.warning("backend left out: directory=%s error=%s", directory, error)
            else:
                found[directory] = metadata
        return found

    async def _directories(self, path: Path) -> list[str]:
        if await self.filesystem.stat(path) is None:
            return []
        return [
            entry.name
            for entry in await self.filesystem.list_directory(path)
            if entry.kind is FileKind.DIRECTORY and not entry.is_link and not is_leftover(entry.name)
        ]

    async def _metadata(self, directory: str) -> BackendMetadata:
        path = self.backends_path / directory / METADATA_FILE
        if await self.filesystem.stat(path) is None:
            return BackendMetadata(name=directory)
        return BackendMetadata.from_json(await self.filesystem.read(path, limit_bytes=METADATA_LIMIT_BYTES))

    async def _plain_program(self, name: str) -> InstalledBackend | None:
        try:
            safe = parse_backend_name(name)
        except UnsafeBackendName:
            return None  # nothing is joined to a path; nothing of that name can be installed
        if is_leftover(safe):
            return None
        for path in (self.backends_path, self.system_path):
            for program in (path / safe, path / safe / safe):
                if await self._is_file(program):
                    is_system = path == self.system_path
                    return InstalledBackend(name=safe, run_file=program, is_system=is_system)
        return None

    async def _is_file(self, path: Path) -> bool:
        found = await self.filesystem.stat(path)
        return found is not None and found.kind is FileKind.FILE


def local_name(name: str) -> str:
    """What a name from a gallery is called on disk."""
    return name.rpartition("@")[2].replace("/", "__")


def named(backends: Mapping[str, InstalledBackend], name: str) -> InstalledBackend | None:
    """The backend listed as `name`, spelled exactly so if one is."""
    wanted = local_name(name)
    if exact := backends.get(name) or backends.get(wanted):
        return exact
    folded = wanted.casefold()
    return next((backends[key] for key in sorted(backends) if key.casefold() == folded), None)


def is_leftover(name: str) -> bool:
    """Whether `name` is that of a directory in the making, ours or upstream's, and no backend's."""
    return name.startswith(".") or name.endswith(_LEFTOVERS)
