"""Installing backends: from galleries, from directories, from images; each on disk whole or not at all."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from anyio import move_on_after

from .backend import BackendName, UnsafeBackendName, parse_backend_name
from .backend_metadata import METADATA_FILE, METADATA_LIMIT_BYTES, BackendMetadata, installation_time
from .errors import (
    ArtifactInvalid,
    ArtifactUnavailable,
    FileUnreadable,
    FileUnwritable,
    MalformedMessage,
    UnsupportedSource,
    WorkerError,
)
from .external_uri import name_external
from .fetches_in_flight import FetchesInFlight, Superseded
from .galleries import Gallery
from .gallery_index import GalleryChoice, GalleryEntry, GalleryIndexes
from .install_errors import (
    DownloadFailed,
    ExternalInstallFailed,
    InstallFailed,
    MissingAfterInstall,
    RunFileMissing,
)
from .install_progress import InstallStep, Listen, reporting, unheard
from .installed import RUN_FILE, InstalledBackend, InstalledBackends, local_name
from .integrity import ImageNotVerified, Integrity, IntegrityRequired, Payload
from .keyed_locks import KeyedLocks
from .messages.backend_progress import InstallPhase
from .ports.artifacts import ArtifactSource
from .ports.clock import Clock
from .ports.filesystem import FileKind, FileSystem, RootedPath
from .shared_progress import SharedProgress
from .source_order import next_source

log = logging.getLogger(__name__)

# What is wrong with one source and need not be with the next.
_OF_ONE_SOURCE = (
    ArtifactUnavailable,
    ArtifactInvalid,
    UnsupportedSource,
    ImageNotVerified,
    IntegrityRequired,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Urgency:
    """`force`: installed also where it is already. `takes_over`: without waiting for a fetch in its way."""

    force: bool = False
    takes_over: bool = False


@dataclass
class InstallBackends:
    """Brings backends onto this node, into `installed.backends_path`.

    A backend is built in a private directory beside its place and swapped in whole: after a failure or
    a cancellation the place is as it was. Installs that would write the same directory, whatever names
    they were asked by, wait for each other and do the work once; all others run at the same time. One that
    is forced does not wait for a fetch in its way: it takes it over, and who was fetching looks again.
    """

    filesystem: FileSystem
    installed: InstalledBackends
    artifacts: ArtifactSource
    galleries: GalleryIndexes
    integrity: Integrity
    clock: Clock
    cleanup_s: float = 30.0  # for removing a private directory, also when cancelled
    locks: KeyedLocks[Path] = field(default_factory=KeyedLocks)  # by backend directory
    fetches: FetchesInFlight = field(default_factory=FetchesInFlight)
    progress: SharedProgress = field(default_factory=SharedProgress)

    async def ensure(
        self,
        *,
        backend: str,
        galleries: Sequence[Gallery],
        uri: str = "",
        name: str = "",
        alias: str = "",
        force: bool = False,
        listen: Listen = unheard,
    ) -> InstalledBackend:
        """The backend that a request means, installed if it is not, and with `force` also if it is.

        Found on disk without `force`, nothing is downloaded. Otherwise it comes from `uri` if there is
        one (a local directory, an image, or else the name of a gallery entry), called `name` or, without
        one, as the uri says, with `alias` as its second name; else `backend` is looked up in `galleries`.
        `listen` hears how far it is, or while it waits for another install of the same, how far that is.
        Source: LocalAI core/services/worker/install.go, installBackend.

        Raises:
            InstallFailed: it could not be installed.
            MissingAfterInstall: what was installed cannot be started under its name.
            FileUnreadable: the backends on disk cannot be listed.
        """
        known_as = (name if uri else "") or backend
        found, urgency = None, Urgency(force=force, takes_over=force)
        while found is None:
            if known_as and not force:
                found = await self.installed.find(known_as)
                if found is not None:
                    break
            try:
                if uri:
                    known_as = await self._install_external(uri, name, alias, galleries, listen, urgency)
                else:
                    known_as = await self._install_from_galleries(backend, galleries, listen, urgency)
            except Superseded:
                log.info("a newer request installs it: backend=%s", known_as or uri)
                urgency = Urgency(force=force)  # the newer one is waited for
                continue
            except WorkerError as cause:
                raise InstallFailed(cause) from cause
            found = await self.installed.find(known_as)
            break
        if found is None:
            raise MissingAfterInstall(known_as)
        return found

    async def _install_external(
        self,
        uri: str,
        name: str,
        alias: str,
        galleries: Sequence[Gallery],
        listen: Listen,
        urgency: Urgency,
    ) -> str:
        there = await self.filesystem.stat(Path(uri)) if uri.startswith("/") else None
        is_directory = there is not None and there.kind is FileKind.DIRECTORY
        target = name_external(uri, name=name, alias=alias, is_directory=is_directory)
        try:
            if target is None:
                return await self._install_from_galleries(uri, galleries, listen, urgency)
            async with self._holding((target,), urgency, listen) as tell:
                if urgency.force or await self.installed.find(target) is None:
                    metadata = BackendMetadata(alias=alias, name=target, uri=uri)
                    await self._install(Payload(target, (uri,)), metadata, tell)
        except WorkerError as cause:
            raise ExternalInstallFailed(uri, cause) from cause
        return target

    async def _install_from_galleries(
        self, name: str, galleries: Sequence[Gallery], listen: Listen, urgency: Urgency
    ) -> str:
        if name:
            _require_safe(name)
        listen(InstallStep(InstallPhase.RESOLVING, name))
        choice = await self.galleries.choose(name, galleries)
        requested, concrete = choice.requested, choice.concrete
        async with self._holding((requested.name, concrete.name), urgency, listen) as tell:
            if urgency.force or await self.installed.find(requested.name) is None:
                if urgency.force or not (requested.is_meta and await self._is_complete(concrete)):
                    await self._install(_payload_of(concrete), _metadata_of(concrete), tell)
                if requested.is_meta:
                    await self._point(choice)
        return requested.name

    async def _is_complete(self, entry: GalleryEntry) -> bool:
        """Whether the directory of `entry` holds a program and the metadata that is written last."""
        directory = self.installed.backends_path / entry.name
        run_file = await self.filesystem.stat(directory / RUN_FILE)
        if run_file is None or run_file.kind is not FileKind.FILE:
            return False
        try:
            content = await self.filesystem.read(directory / METADATA_FILE, limit_bytes=METADATA_LIMIT_BYTES)
            return BackendMetadata.from_json(content).name == entry.name
        except (FileUnreadable, MalformedMessage) as error:
            log.warning("backend is incomplete: directory=%s error=%s", directory, error)
            return False

    async def _point(self, choice: GalleryChoice) -> None:
        """Write the directory of a meta backend, which only says where its concrete one lies."""
        metadata = BackendMetadata(
            meta_backend_for=choice.concrete.name,
            name=choice.requested.name,
            gallery_url=choice.requested.gallery.url,
            version=choice.concrete.version,
        )
        async with self._private_directory(choice.requested.name) as private:
            await self._publish(private, metadata)

    async def _install(self, payload: Payload, metadata: BackendMetadata, listen: Listen) -> None:
        """Install the payload that the first source gives which has it and may be trusted."""
        self.integrity.admit(payload, payload.sources[0])
        failures: list[WorkerError] = []
        while (uri := next_source(payload.sources, failures)) is not None:
            async with self._private_directory(metadata.name) as private:
                try:
                    with self.fetches.fetching(self.installed.backends_path / metadata.name):
                        fetched = await self.artifacts.fetch(
                            uri,
                            private,
                            sha256=payload.sha256,
                            approve=self.integrity.admit(payload, uri),
                            report=reporting(listen, uri),
                        )
                except _OF_ONE_SOURCE as error:
                    log.warning("source failed: backend=%s error=%s", metadata.name, error)
                    failures.append(error)
                    continue
                except FileUnwritable as error:  # no other source would fit better
                    raise DownloadFailed(uri, error) from error
                await self._require_run_file(private, metadata.name, uri)
                await self._publish(private, replace(metadata, digest=fetched.digest))
                log.info(
                    "backend installed: name=%s source=%s size_bytes=%d",
                    metadata.name,
                    uri,
                    fetched.size_bytes,
                )
                return
        raise DownloadFailed(payload.sources[0], failures[0]) from failures[0]

    async def _require_run_file(self, directory: Path, name: str, source: str) -> None:
        found = await self.filesystem.locate(RootedPath(directory, PurePosixPath(RUN_FILE)))
        if found is None or found.kind is not FileKind.FILE:
            raise RunFileMissing(self.installed.backends_path / name / RUN_FILE, source)

    async def _publish(self, private: Path, metadata: BackendMetadata) -> None:
        """Put `private` in place as `metadata.name`, its metadata.json written last."""
        stamped = replace(metadata, installed_at=installation_time(self.clock.now()))
        await self.filesystem.write(private / METADATA_FILE, stamped.to_json())
        await self.filesystem.replace_directory(private, self.installed.backends_path / metadata.name)

    @asynccontextmanager
    async def _private_directory(self, name: str) -> AsyncIterator[Path]:
        """A directory to build the backend `name` in; gone afterwards unless it was put in place."""
        await self.filesystem.make_directory(self.installed.backends_path)
        private = await self.filesystem.private_directory(self.installed.backends_path / name)
        try:
            yield private
        finally:
            with move_on_after(self.cleanup_s, shield=True) as cleaning:
                try:
                    await self.filesystem.remove_tree(private)
                except FileUnwritable as error:
                    log.warning("left behind: %s", error)
            if cleaning.cancelled_caught:
                log.warning("left behind: %s could not be removed within %g s", private, self.cleanup_s)

    @asynccontextmanager
    async def _holding(
        self, names: Sequence[BackendName], urgency: Urgency, listen: Listen
    ) -> AsyncIterator[Listen]:
        """Hold the directories `names`; what the block tells reaches `listen`, and those who wait for it."""
        places = [self.installed.backends_path / name for name in names]
        if urgency.takes_over:
            self.fetches.take_over(places)
        async with AsyncExitStack() as held:
            if self.locks.are_busy(places):
                listen(InstallStep(InstallPhase.RESOLVING, f"waiting for another operation on {names[0]}"))
            # One that takes over would hear of a fetch that it has ended.
            with self.progress.overhearing(() if urgency.takes_over else places, listen):
                await held.enter_async_context(self.locks.hold_all(places))
            with self.progress.telling(places, listen) as tell:
                yield tell


def _require_safe(name: str) -> None:
    """Refuse a name that could not lie on disk at once, whatever state the galleries are in (N-B7)."""
    try:
        parse_backend_name(local_name(name))
    except UnsafeBackendName as error:
        raise UnsafeBackendName(name, error.problem) from error


def _payload_of(entry: GalleryEntry) -> Payload:
    return Payload(entry.name, entry.sources, entry.sha256, entry.gallery)


def _metadata_of(entry: GalleryEntry) -> BackendMetadata:
    return BackendMetadata(
        alias=entry.alias,
        name=entry.name,
        gallery_url=entry.gallery.url,
        version=entry.version,
        uri=entry.uri,
    )
