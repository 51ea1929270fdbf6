"""The way out of the process table: Free, the stop ladder, strays, and only then the port."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from .allocate_ports import PortPool
from .backend import ReplicaKey
from .errors import BackendUnavailable, BackendUnhealthy, WorkerError
from .ports.backend_client import BackendClient
from .process_journal import ProcessJournal
from .process_table import Entry, ProcessTable
from .start_backend import BackendStarter
from .stop_group import StopLadder
from .stop_strays import StopStrays

log = logging.getLogger(__name__)

FREE_S = 5.0  # Free is given this long (N-B33)


@dataclass(frozen=True, slots=True)
class Stopped:
    """What a stop did; `free_error` is why Free failed, "" when it worked or was skipped."""

    key: ReplicaKey
    freed: bool = False
    free_error: str = ""


@dataclass
class ReplicaEnd:
    """Ends the processes of `table`, gives their ports back and has the journal forget them.

    `tasks` gives the task group that outlives a stop, None when there is none any more.
    """

    starter: BackendStarter
    client: BackendClient
    ports: PortPool
    ladder: StopLadder
    table: ProcessTable
    journal: ProcessJournal | None
    tasks: Callable[[], TaskGroup | None]
    strays: StopStrays = field(init=False)

    def __post_init__(self) -> None:
        self.strays = StopStrays(self.starter.processes)

    async def stop(self, entry: Entry, *, force: bool, free_s: float, ladder: StopLadder | None) -> Stopped:
        """Free (unless `force`), then the ladder; a stop already under way is waited for.

        Raises:
            GroupSurvived: the group outlived KILL; entry and port stay taken.
        """
        if entry.stopping:
            await entry.stop_over.wait()  # report only after death (N-B39)
            if entry.survived is not None:
                raise entry.survived
            return Stopped(entry.key)
        entry.stopping = True
        with anyio.CancelScope(shield=True):
            await entry.launched.wait()  # a spawn takes milliseconds; a process must not slip through
            free_error = "" if force or not entry.ready else await self._free(entry, free_s)
            await self._end(entry, ladder or self.ladder)
        return Stopped(entry.key, freed=entry.ready and not force and not free_error, free_error=free_error)

    async def clean_up(self, entry: Entry) -> None:
        """End what is left of a process nobody asked to stop; a survivor keeps its entry and its port."""
        entry.stopping = True
        try:
            with anyio.CancelScope(shield=True):
                await self._end(entry, self.ladder)
        except WorkerError as error:
            log.error("clean-up failed: replica=%s error=%s", entry.key, error)

    async def _free(self, entry: Entry, timeout_s: float) -> str:
        try:
            await self.client.free(entry.address, timeout_s=timeout_s)
        except (BackendUnavailable, BackendUnhealthy) as error:
            log.debug("free failed: replica=%s error=%s", entry.key, error)
            return str(error)
        return ""

    async def _end(self, entry: Entry, ladder: StopLadder) -> None:
        """End the group, then give the port back and forget the entry: never in another order (S-W26)."""
        try:
            if entry.spawned is not None:
                await ladder.descend(entry.key, entry.spawned.process)
                await self.strays.end(entry.key, entry.spawned.mark, ladder)
                await self.starter.ended(entry.spawned)
                self._forget_rested(entry.spawned.process.pid)
                log.info("backend stopped: replica=%s port=%d", entry.key, entry.lease.port)
        except WorkerError as error:
            # It lives: entry and port stay taken, and a later stop may try again.
            entry.survived, entry.stopping = error, False
            over, entry.stop_over = entry.stop_over, anyio.Event()
            over.set()
            raise
        self.ports.release(entry.lease, now_s=anyio.current_time())
        del self.table.entries[entry.key]
        entry.survived = None
        entry.stop_over.set()

    def _forget_rested(self, pid: int) -> None:
        """Drop the journal's record once the port has rested: a worker that comes before lets it rest too."""
        if self.journal is not None and (tasks := self.tasks()) is not None:
            tasks.start_soon(self._forget_later, self.journal, pid)

    async def _forget_later(self, journal: ProcessJournal, pid: int) -> None:
        try:
            await anyio.sleep(self.ports.rest_s)
        finally:  # a worker that goes in good order leaves no records
            spawned = (entry.spawned for entry in self.table.entries.values())
            if all(launched is None or launched.process.pid != pid for launched in spawned):
                with anyio.CancelScope(shield=True):
                    await journal.forget(pid)
