"""Replacing a backend by a fresh install of it: for upgrades, and for installs that are forced."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from .backend import ReplicaKey
from .backend_files import backend_files
from .errors import WorkerError
from .galleries import Gallery
from .install import InstallBackends
from .install_errors import InstallFailed
from .install_progress import Listen, unheard
from .installed import InstalledBackend, InstalledBackends
from .stop_replicas import ReplicaNotStopped, stop_replicas
from .supervise import Supervisor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedBackend:
    """What a request says of the backend it wants; see `InstallBackends.ensure`."""

    backend: str
    galleries: Sequence[Gallery]
    uri: str = ""
    name: str = ""
    alias: str = ""

    @property
    def known_as(self) -> str:
        """The name it has on disk, where the request tells it."""
        return (self.name if self.uri else "") or self.backend


@dataclass(frozen=True, slots=True)
class Replaced:
    """The new backend, and the processes that were ended for it."""

    backend: InstalledBackend
    stopped: tuple[ReplicaKey, ...]


@dataclass(eq=False)
class ReplacementFailed(WorkerError):
    """A backend was not replaced, or processes of the old one live on; the `stopped` ones are dead."""

    wanted: WantedBackend
    cause: WorkerError
    stopped: tuple[ReplicaKey, ...]

    def __str__(self) -> str:
        return self.during("reinstall")

    def during(self, operation: str) -> str:
        """The text for a reply about `operation`: `upgrade` or `reinstall`, as upstream words it."""
        if isinstance(self.cause, ReplicaNotStopped):
            return f"stopping running backend before {operation}: {self.cause.cause}"
        if isinstance(self.cause, InstallFailed) and operation == "upgrade":
            source = "external URI" if self.wanted.uri else "gallery"
            return f"upgrading backend from {source}: {self.cause.cause}"
        return str(self.cause)


@dataclass
class ReplaceBackend:
    """Stops a backend's processes and installs it anew, whatever is there; starts nothing."""

    installer: InstallBackends
    installed: InstalledBackends
    supervisor: Supervisor

    async def replace(
        self, wanted: WantedBackend, own: ReplicaKey | None, listen: Listen = unheard
    ) -> Replaced:
        """Stop all processes of the backend, and that of the key `own`, without Free; then reinstall it.

        The old version stays on disk until the new one is whole. A process that was started from it
        meanwhile is stopped after the change, for its files are gone (G-F6).
        Source: LocalAI core/services/worker/install.go, upgradeBackend.

        Raises:
            ReplacementFailed: with what was stopped.
        """
        stopped: list[ReplicaKey] = []
        try:
            await self._stop(await self._keys(wanted.known_as, own), stopped)
            backend = await self.installer.ensure(
                backend=wanted.backend,
                galleries=wanted.galleries,
                uri=wanted.uri,
                name=wanted.name,
                alias=wanted.alias,
                force=True,
                listen=listen,
            )
            await self._stop(await self.supervisor.outdated(backend.run_file.parent), stopped)
        except WorkerError as error:
            raise ReplacementFailed(wanted, error, tuple(stopped)) from error
        log.info("backend replaced: name=%s stopped=%s", backend.name, [str(key) for key in stopped])
        return Replaced(backend, tuple(stopped))

    async def _keys(self, name: str, own: ReplicaKey | None) -> Sequence[ReplicaKey]:
        if not name:
            return ()
        files = await backend_files(self.installed, name)
        keys = self.supervisor.table.keys_from(files.names, files.places)
        return (*keys, own) if own is not None and own not in keys else keys

    async def _stop(self, keys: Sequence[ReplicaKey], stopped: list[ReplicaKey]) -> None:
        outcome = await stop_replicas(self.supervisor, keys, force=True)
        stopped.extend(key for key in outcome.stopped if key not in stopped)
        if outcome.failure is not None:
            raise outcome.failure
