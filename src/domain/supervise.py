"""Supervision: one process per replica, started once, ready when it truly is, ended with its whole group."""

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from .allocate_ports import PortLease, PortPool
from .backend import ReplicaKey
from .crash_loops import Program
from .deaths import Death
from .end_replica import FREE_S, ReplicaEnd, Stopped
from .errors import WorkerError
from .ports.backend_client import BackendClient
from .ports.filesystem import FileSystem
from .ports.network import Network
from .ports.processes import Process
from .process_journal import JournalRecord, ProcessJournal
from .process_table import Entry, ProcessTable, RememberedBackend, RunnableBackend, RunningReplica
from .start_backend import BackendStarter, Launched
from .stop_group import StopLadder
from .supervision_errors import BackendDied, StoppedDuringStartup, SupervisorClosed

log = logging.getLogger(__name__)


@dataclass
class Supervisor:
    """Keeps the table of backend processes of this node: starts, watches and stops them.

    Use it inside `async with supervisor.running():`, which owns the tasks that watch for deaths and, on
    leaving, makes sure that nothing is left, unless `leave_running` was called. `journal` remembers the
    processes for the next worker; without one nothing is remembered.
    """

    starter: BackendStarter
    client: BackendClient
    filesystem: FileSystem
    network: Network
    ports: PortPool
    ladder: StopLadder = field(default_factory=StopLadder)
    table: ProcessTable = field(default_factory=ProcessTable)
    journal: ProcessJournal | None = None
    _tasks: TaskGroup | None = None
    _closing: bool = False
    _leaving: bool = False

    def __post_init__(self) -> None:
        self._exit = ReplicaEnd(
            self.starter, self.client, self.ports, self.ladder, self.table, self.journal, lambda: self._tasks
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The time in which backends may run; ends with every one of them stopped."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self.starter.output.run)
                try:
                    yield
                finally:
                    self._closing = True
                    with anyio.CancelScope(shield=True):
                        if self._leaving:
                            await self._stop_unready()
                        else:
                            await self.stop_all(force=True)
                    tasks.cancel_scope.cancel()
        finally:
            self._tasks = None

    def refuse_new_work(self) -> None:
        """From now on `start` raises SupervisorClosed: the worker is shutting down (N-B11)."""
        self._closing = True

    def leave_running(self) -> None:
        """Replicas that are up stay so when this supervisor ends; the journal tells the next one of them."""
        self._closing = self._leaving = True

    def adopt(self, record: JournalRecord, process: Process, *, ready: bool) -> None:
        """Take over `process`, which an earlier worker started as `record` says, with its port.

        `ready`: it counts as up and its death is watched; otherwise it is there only to be stopped.
        """
        assert self._tasks is not None, "adopt belongs inside running()"
        lease = PortLease(record.key, record.port)
        self.ports.claim(lease)
        backend = RememberedBackend(record.backend, record.run_file)
        entry = Entry(record.key, backend, lease, record.directory_inode)
        entry.spawned = self.starter.found(record.key, record.port, process, record.mark)
        entry.ready, entry.ready_s = ready, anyio.current_time()
        entry.launched.set()
        entry.settled.set()
        self.table.entries[record.key] = entry
        if ready:
            self._tasks.start_soon(self._watch, entry, entry.spawned)

    @property
    def replicas(self) -> tuple[RunningReplica, ...]:
        """Replicas that are up and not being stopped."""
        return self.table.running

    @property
    def marks(self) -> frozenset[str]:
        """The marks of all processes in the table."""
        launched = (entry.spawned for entry in self.table.entries.values())
        return frozenset(each.mark for each in launched if each is not None)

    async def busy(self) -> bool:
        """Whether a client is connected to a replica that is up; False where the machine cannot tell.

        Frontends open a connection for every call, so one means a request in flight; a client that keeps
        an idle one looks the same.
        """
        ports = frozenset(replica.port for replica in self.replicas)
        return bool(ports) and bool(await self.network.connections(ports))

    async def outdated(self, directory: Path) -> tuple[ReplicaKey, ...]:
        """Keys of processes started from what `directory` was before it was replaced."""
        found = []
        for key, entry in tuple(self.table.entries.items()):
            if entry.backend.run_file.parent == directory:
                await entry.launched.wait()  # milliseconds
                if not await self._in_place(entry):
                    found.append(key)
        return tuple(found)

    async def start(self, key: ReplicaKey, backend: RunnableBackend, identity: frozenset[str]) -> int:
        """Have `backend` run for `key` and return its port once it answers Health.

        A running process is reused if it is alive, one of `identity` (the names this backend goes by),
        and its directory is still the one it started from; otherwise it is stopped first. Concurrent
        calls for one key share one start.

        Raises:
            SupervisorClosed: the worker is shutting down.
            CrashLoop: its process keeps dying; the next try waits.
            NoFreePort, BackendNotStarted, BackendDied, BackendNotReady, StoppedDuringStartup: why the
                process is not up; nothing is left of it and its port rests.
        """
        while True:
            while (entry := self.table.get(key)) is not None:
                if entry.stopping:
                    await entry.stop_over.wait()  # bounded by the stop ladder (N-B40)
                elif not entry.settled.is_set():
                    await entry.settled.wait()  # bounded by the ready timeout
                    if entry.failure is not None:
                        raise entry.failure
                elif await self._reusable(entry, identity):
                    return entry.lease.port
                else:
                    await self.stop(key)
            program = await self._program(backend)
            if self.table.get(key) is None:  # nobody else began meanwhile
                return await self._start(key, backend, program)

    async def free(self, key: ReplicaKey, *, timeout_s: float = FREE_S) -> None:
        """Have the process of `key` let go of its model; without one that is up there is nothing to do.

        Raises:
            BackendUnavailable: as `BackendClient.free`.
        """
        entry = self.table.get(key)
        if entry is not None and entry.ready and not entry.stopping:
            await self.client.free(entry.address, timeout_s=timeout_s)

    async def stop(
        self,
        key: ReplicaKey,
        *,
        force: bool = False,
        free_s: float = FREE_S,
        ladder: StopLadder | None = None,
    ) -> Stopped | None:
        """Stop the process of `key`: Free (unless `force`), then the ladder; None when there is none.

        Runs to its end even if the caller is cancelled; a stop already under way is waited for, and goes
        on as it began. Free takes at most `free_s` seconds; `ladder` replaces the supervisor's own.

        Raises:
            GroupSurvived: the group outlived KILL; entry and port stay taken.
        """
        entry = self.table.get(key)
        if entry is None:
            return None
        return await self._exit.stop(entry, force=force, free_s=free_s, ladder=ladder)

    async def stop_all(self, *, force: bool = False) -> None:
        """Stop every process at the same time; one that survives is logged and does not hold up the rest."""
        await self._stop_each(self.table, force=force)

    async def _stop_unready(self) -> None:
        """Stop what nobody could take over: replicas that are still starting."""
        await self._stop_each(
            [key for key, entry in self.table.entries.items() if entry.up is None], force=True
        )

    async def _stop_each(self, keys: Iterable[ReplicaKey], *, force: bool) -> None:
        async def stop_one(key: ReplicaKey) -> None:
            try:
                await self.stop(key, force=force)
            except WorkerError as error:
                log.error("stop failed: replica=%s error=%s", key, error)

        async with anyio.create_task_group() as stops:
            for key in keys:
                stops.start_soon(stop_one, key)

    async def _start(self, key: ReplicaKey, backend: RunnableBackend, program: Program) -> int:
        if self._closing or self._tasks is None:
            raise SupervisorClosed(key)
        self.starter.deaths.check(key, program)
        lease = self.ports.lease(key, now_s=anyio.current_time(), usable=self.network.can_listen)
        entry = self.table.entries[key] = Entry(key, backend, lease, program.directory_inode)
        try:
            try:
                launched = entry.spawned = await self.starter.launch(key, backend.run_file, lease.port)
                self._tasks.start_soon(self._watch, entry, launched)
            finally:
                entry.launched.set()
            await self._note(entry)
            await self.starter.until_ready(launched, lambda: entry.stopping)
            entry.ready, entry.ready_s = True, anyio.current_time()
            self._tasks.start_soon(self._note, entry)  # the reply does not wait for the disk
            log.info("backend ready: replica=%s backend=%s port=%d", key, backend.name, lease.port)
        except BaseException as error:
            entry.failure = error if isinstance(error, WorkerError) else StoppedDuringStartup(key)
            if isinstance(error, BackendDied):
                self._remember(entry, error.death, told=True)
            if not entry.stopping:
                await self._exit.clean_up(entry)
            raise
        finally:
            entry.settled.set()
        return lease.port

    async def _note(self, entry: Entry) -> None:
        if self.journal is not None and not entry.stopping and (record := entry.record) is not None:
            await self.journal.keep(record)

    async def _watch(self, entry: Entry, launched: Launched) -> None:
        """Report an unexpected death at once and clean up behind it; no restart (D14)."""
        ended = await launched.process.wait()
        if entry.stopping or not entry.ready:
            return  # a stop or the start itself deals with it
        death = await self.starter.death(launched, ended)
        self._remember(entry, death, told=False)
        if not entry.stopping:
            await self._exit.clean_up(entry)

    def _remember(self, entry: Entry, death: Death, *, told: bool) -> None:
        """Log a death and keep it for the next reply and the status."""
        log.warning(
            "backend died: replica=%s pid=%d how=%r last_stderr=%r",
            entry.key,
            death.pid,
            death.verdict,
            death.last_line,
        )
        healthy_for_s = anyio.current_time() - entry.ready_s if entry.ready else 0.0
        self.starter.deaths.remember(death, entry.program, healthy_for_s=healthy_for_s, told=told)

    async def _reusable(self, entry: Entry, identity: frozenset[str]) -> bool:
        return entry.up is not None and entry.backend.name in identity and await self._in_place(entry)

    async def _program(self, backend: RunnableBackend) -> Program:
        return Program(backend.run_file, await self.filesystem.directory_inode(backend.run_file.parent))

    async def _in_place(self, entry: Entry) -> bool:
        inode = await self.filesystem.directory_inode(entry.backend.run_file.parent)
        return 0 != inode == entry.directory_inode
