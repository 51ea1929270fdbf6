"""The process table: which replica has which process, from the begin of its start to the end of its stop."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import anyio

from .allocate_ports import PortLease
from .backend import ReplicaKey
from .crash_loops import Program
from .errors import WorkerError
from .ports.processes import Process
from .process_journal import JournalRecord
from .start_backend import Launched, is_alive


class RunnableBackend(Protocol):
    """What the supervisor needs to know of an installed backend: its own name and its run.sh."""

    @property
    def name(self) -> str: ...

    @property
    def run_file(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class RememberedBackend:
    """A backend as the journal remembers it: it may have been deleted or replaced since."""

    name: str
    run_file: Path


@dataclass(frozen=True, slots=True)
class RunningReplica:
    """A replica that is up: `port` on this machine answers for `key`."""

    key: ReplicaKey
    backend: str
    port: int
    pid: int


@dataclass(eq=False)
class Entry:
    """A row of the table; it leaves the table only when its process group is gone."""

    key: ReplicaKey
    backend: RunnableBackend
    lease: PortLease
    directory_inode: int
    spawned: Launched | None = None
    ready: bool = False
    ready_s: float = 0.0  # since when, by the loop's clock
    stopping: bool = False
    failure: WorkerError | None = None
    launched: anyio.Event = field(default_factory=anyio.Event)  # spawned, or could not be
    settled: anyio.Event = field(default_factory=anyio.Event)  # ready, or failed
    stop_over: anyio.Event = field(default_factory=anyio.Event)  # the stop under way has ended, well or not
    survived: WorkerError | None = None  # why the last stop did not end the group

    @property
    def up(self) -> Process | None:
        """The process, once it is ready and while it lives."""
        launched = self.spawned
        return launched.process if launched and self.ready and is_alive(launched.process) else None

    @property
    def program(self) -> Program:
        """What it runs."""
        return Program(self.backend.run_file, self.directory_inode)

    @property
    def address(self) -> str:
        """Where this machine reaches it."""
        return f"127.0.0.1:{self.lease.port}"

    @property
    def record(self) -> JournalRecord | None:
        """What the journal keeps of it; None without a process, or where none can be found again."""
        launched = self.spawned
        if launched is None or (identity := launched.process.identity) is None:
            return None
        return JournalRecord(
            key=self.key,
            backend=self.backend.name,
            run_file=self.backend.run_file,
            directory_inode=self.directory_inode,
            port=self.lease.port,
            process=identity,
            mark=launched.mark,
            ready=self.ready,
        )


@dataclass
class ProcessTable:
    """The entries by key, and what identifiers mean among them."""

    entries: dict[ReplicaKey, Entry] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ReplicaKey]:
        """The keys of a moment: the table may change meanwhile."""
        return iter(tuple(self.entries))

    def get(self, key: ReplicaKey) -> Entry | None:
        """The entry of `key`."""
        return self.entries.get(key)

    @property
    def running(self) -> tuple[RunningReplica, ...]:
        """Replicas that are up and not being stopped."""
        return tuple(
            RunningReplica(entry.key, entry.backend.name, entry.lease.port, process.pid)
            for entry in self.entries.values()
            if not entry.stopping and (process := entry.up) is not None
        )

    def keys_of(self, identifier: str, identity: frozenset[str] = frozenset()) -> tuple[ReplicaKey, ...]:
        """Keys that `identifier` means: an exact key, a model id with all its replicas, or a backend
        (`identity`: the names it goes by).
        """
        return tuple(
            key
            for key, entry in self.entries.items()
            if key.matches(identifier) or (identity and entry.backend.name in identity)
        )

    def keys_from(self, names: Collection[str], places: Collection[Path]) -> tuple[ReplicaKey, ...]:
        """Keys whose backend has one of `names` or whose program lies at or below `places`."""
        return tuple(
            key
            for key, entry in self.entries.items()
            if entry.backend.name in names
            or any(entry.backend.run_file.is_relative_to(place) for place in places)
        )

    def port_of(self, key: ReplicaKey) -> int | None:
        """The port of `key`, from the begin of its start to the end of its stop; None without a process."""
        entry = self.entries.get(key)
        return None if entry is None else entry.lease.port
