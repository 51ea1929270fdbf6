"""Deleting a backend: its processes end first, then its files go, and no install comes in between."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from anyio import move_on_after

from .backend import ReplicaKey
from .backend_files import BackendFiles, backend_files
from .errors import FileUnwritable, WorkerError
from .gallery_index import EmptyBackendName
from .installed import InstalledBackends, local_name
from .keyed_locks import KeyedLocks
from .messages.error_text import go_quote
from .ports.filesystem import FileSystem
from .stop_replicas import stop_replicas
from .supervise import Supervisor

log = logging.getLogger(__name__)


@dataclass(eq=False)
class SystemBackend(WorkerError):
    """A backend that came with the machine."""

    name: str

    def __str__(self) -> str:
        return f"system backend {go_quote(self.name)} cannot be deleted"


@dataclass(eq=False)
class BackendBusy(WorkerError):
    """An install or upgrade of the backend is under way and takes longer than a deletion may wait."""

    name: str
    waited_s: float

    def __str__(self) -> str:
        return (
            f"backend {go_quote(self.name)} is being installed or upgraded; waited {self.waited_s:g} s, "
            "try again when that is over"
        )


@dataclass(eq=False)
class DeletionFailed(WorkerError):
    """A backend is not, or not wholly, deleted; the processes `stopped` are dead all the same."""

    cause: WorkerError
    stopped: tuple[ReplicaKey, ...]

    def __str__(self) -> str:
        return str(self.cause)


@dataclass
class DeleteBackend:
    """Removes backends from this node. `locks` are those of `InstallBackends`, by backend directory.

    The frontend waits two minutes for its answer: an install under way is waited for `wait_s` seconds, and
    a stop ladder has room behind that.
    """

    filesystem: FileSystem
    installed: InstalledBackends
    supervisor: Supervisor
    locks: KeyedLocks[Path]
    wait_s: float = 90.0

    async def delete(self, name: str) -> tuple[ReplicaKey, ...]:
        """Stop every process of the backend `name`, delete its files, and return what was stopped.

        What the name means, `backend_files` says. With nothing installed under it there is nothing to do
        (N-B36). One process that does not end keeps all files.

        Raises:
            EmptyBackendName, UnsafeBackendName, SystemBackend, FileUnreadable: nothing was touched.
            DeletionFailed: an install does not end, or a process could not be stopped, and no file was
                touched; or a file could not be removed.
        """
        if not name:
            raise EmptyBackendName
        async with AsyncExitStack() as held:
            with move_on_after(self.wait_s) as waiting:
                files = await held.enter_async_context(self._held(name))
            if waiting.cancelled_caught:
                raise DeletionFailed(BackendBusy(name, self.wait_s), ())
            if files.is_system:
                raise SystemBackend(name)
            keys = self.supervisor.table.keys_from(files.names, files.doomed)
            outcome = await stop_replicas(self.supervisor, keys, force=False)
            if outcome.failure is not None:
                raise DeletionFailed(outcome.failure, outcome.stopped)
            if not files.doomed:
                log.info("backend is not installed, nothing to delete: name=%s", name)
            for place in files.doomed:
                try:
                    await self.filesystem.remove_tree(place)
                except FileUnwritable as error:
                    raise DeletionFailed(error, outcome.stopped) from error
                log.info("backend deleted: name=%s path=%s", name, place)
            return outcome.stopped

    @asynccontextmanager
    async def _held(self, name: str) -> AsyncIterator[BackendFiles]:
        """The files of `name`, their directories locked against installs, upgrades and other deletions."""
        while True:  # again only when somebody else got something done in between
            files = await backend_files(self.installed, name)
            own = self.installed.backends_path / local_name(name)
            async with self.locks.hold_all({own, *files.doomed}):
                if await backend_files(self.installed, name) == files:
                    yield files
                    return
