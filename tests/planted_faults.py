"""Workers that are broken on purpose, one fault each: what the simulator has to find."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from localai_worker.adapters.memory.file_transfers import InMemoryPartialFile
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.network import InMemoryNetwork
from localai_worker.adapters.memory.ranged_files import InMemoryAssembledFile
from localai_worker.app.control_plane import ControlPlane
from localai_worker.domain import fetch_object, object_cache
from localai_worker.domain.allocate_ports import PortPool
from localai_worker.domain.cache_janitor import CacheJanitor
from localai_worker.domain.cache_records import CacheRecords
from localai_worker.domain.end_replica import ReplicaEnd
from localai_worker.domain.heartbeats import Heartbeats
from localai_worker.domain.install import InstallBackends
from localai_worker.domain.keyed_locks import KeyedLocks
from localai_worker.domain.ports.processes import Listening, StopSignal
from localai_worker.domain.process_journal import ProcessJournal
from localai_worker.domain.process_table import Entry
from localai_worker.domain.recover import RecoverBackends, Recovered
from localai_worker.domain.refresh_object import RefreshObject
from localai_worker.domain.stage_files import StageFiles
from localai_worker.domain.start_backend import BackendStarter
from localai_worker.domain.stop_group import StopLadder
from localai_worker.domain.supervise import Supervisor

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]


def port_released_before_death(patch: Patch) -> None:
    honest = ReplicaEnd._end

    async def end(self: ReplicaEnd, entry: Entry, ladder: StopLadder) -> None:
        self.ports.release(entry.lease, now_s=anyio.current_time())
        await honest(self, entry, ladder)

    patch.setattr(ReplicaEnd, "_end", end)


def port_without_rest(patch: Patch) -> None:
    honest = PortPool.lease

    def lease(self: PortPool, key: Any, *, now_s: float, usable: Any) -> Any:
        return honest(self, key, now_s=now_s + 1000, usable=usable)

    patch.setattr(PortPool, "lease", lease)


def reply_lost_on_failure(patch: Patch) -> None:
    honest = ControlPlane._reply

    async def reply(self: ControlPlane, command: Any, message: Any, answer: Any) -> None:
        if not getattr(answer, "error", ""):
            await honest(self, command, message, answer)

    patch.setattr(ControlPlane, "_reply", reply)


def failure_told_twice(patch: Patch) -> None:
    honest = ControlPlane._reply

    async def reply(self: ControlPlane, command: Any, message: Any, answer: Any) -> None:
        await honest(self, command, message, answer)
        if getattr(answer, "error", ""):
            await honest(self, command, message, answer)

    patch.setattr(ControlPlane, "_reply", reply)


def stranger_taken_for_the_backend(patch: Patch) -> None:
    async def until_ready(self: BackendStarter, launched: Any, stopping: Callable[[], bool]) -> None:
        process = launched.process
        while await process.listening(launched.port) is Listening.NOBODY and process.exit is None:
            await anyio.sleep(0.1)

    patch.setattr(BackendStarter, "until_ready", until_ready)
    patch.setattr(InMemoryNetwork, "can_listen", lambda _self, _port: True)


def stop_that_waits_for_nobody(patch: Patch) -> None:
    async def descend(self: StopLadder, key: Any, process: Any) -> None:
        process.signal_group(StopSignal.TERM)

    patch.setattr(StopLadder, "descend", descend)


def lock_kept_after_a_failure(patch: Patch) -> None:
    honest = KeyedLocks.hold
    held: list[Any] = []

    @asynccontextmanager
    async def hold(self: KeyedLocks[Any], key: Any) -> AsyncIterator[None]:
        lock = honest(self, key)
        held.append(lock)  # or the collector of garbage would give it back
        await lock.__aenter__()
        yield
        await lock.__aexit__(None, None, None)

    patch.setattr(KeyedLocks, "hold", hold)


def death_that_nobody_cleans_up(patch: Patch) -> None:
    async def watch(self: Supervisor, entry: Entry, launched: Any) -> None:
        await launched.process.wait()

    patch.setattr(Supervisor, "_watch", watch)


def node_that_never_registers_again(patch: Patch) -> None:
    honest = Heartbeats._beat

    async def beat(self: Heartbeats, outcome: Any, forgotten: int) -> int:
        await honest(self, outcome, forgotten)
        return 0

    patch.setattr(Heartbeats, "_beat", beat)


def journal_that_is_not_written(patch: Patch) -> None:
    """And no marks either: the processes of a killed worker are then nobody's."""

    async def keep(self: ProcessJournal, record: Any) -> None:
        return None

    async def sweep(self: RecoverBackends, recovered: Recovered) -> None:
        return None

    patch.setattr(ProcessJournal, "keep", keep)
    patch.setattr(RecoverBackends, "_sweep", sweep)


def backend_built_in_its_place(patch: Patch) -> None:
    @asynccontextmanager
    async def private_directory(self: InstallBackends, name: str) -> AsyncIterator[Path]:
        place = self.installed.backends_path / name
        await self.filesystem.make_directory(place)
        yield place

    async def replace_directory(self: InMemoryFileSystem, new: Path, target: Path) -> None:
        return None

    patch.setattr(InstallBackends, "_private_directory", private_directory)
    patch.setattr(InMemoryFileSystem, "replace_directory", replace_directory)


def upload_that_is_visible_at_once(patch: Patch) -> None:
    honest = InMemoryPartialFile.write

    async def write(self: InMemoryPartialFile, chunk: bytes) -> None:
        await honest(self, chunk)
        self._disk.tree.attach(self._target, self._disk.tree.new_file(bytes(self._content), 0o644))

    patch.setattr(InMemoryPartialFile, "write", write)


def cache_that_never_asks_again(patch: Patch) -> None:
    """As upstream: a file that is there is taken for the object (S-K05)."""

    async def is_fresh(self: RefreshObject, *_args: Any) -> bool:
        return True

    patch.setattr(RefreshObject, "_is_fresh", is_fresh)
    patch.setattr(CacheRecords, "used", lambda _self, _name, _now_s: None)


def object_that_is_visible_at_once(patch: Patch) -> None:
    honest = InMemoryAssembledFile.write_at

    def write_at(self: InMemoryAssembledFile, offset: int, chunk: memoryview) -> None:
        honest(self, offset, chunk)
        tree = self._disk.tree
        tree.attach(self._target, tree.new_file(bytes(self._kept.content), 0o644))

    patch.setattr(InMemoryAssembledFile, "write_at", write_at)


def fetch_that_answers_only_when_it_is_done(patch: Patch) -> None:
    patch.setattr(object_cache, "ANSWER_S", 1e9)


def objects_that_are_not_checked(patch: Patch) -> None:
    async def find_check(*_args: Any) -> None:
        return None

    patch.setattr(fetch_object, "find_check", find_check)


def cache_that_is_never_swept(patch: Patch) -> None:
    async def sweep(self: CacheJanitor) -> None:
        return None

    patch.setattr(CacheJanitor, "sweep", sweep)


def upload_that_only_seems_done(patch: Patch) -> None:
    async def stage(self: StageFiles, local_path: str, key: str) -> None:
        return None

    patch.setattr(StageFiles, "stage", stage)


def service_that_forgets_no_heartbeat(patch: Patch) -> None:
    """They pile up deep inside of what it holds."""
    honest = Heartbeats._beat

    async def beat(self: Heartbeats, outcome: Any, forgotten: int) -> int:
        vars(self.enrolment).setdefault("_beats", {}).setdefault("sent", []).append(anyio.current_time())
        return await honest(self, outcome, forgotten)

    patch.setattr(Heartbeats, "_beat", beat)


def exception_that_nobody_foresaw(patch: Patch) -> None:
    async def new_temporary(self: StageFiles) -> Path:
        raise KeyError("staging-tmp")

    patch.setattr(StageFiles, "new_temporary", new_temporary)


def worker_that_ends_over_a_failed_command(patch: Patch) -> None:
    honest = ControlPlane._reply

    async def reply(self: ControlPlane, command: Any, message: Any, answer: Any) -> None:
        await honest(self, command, message, answer)
        if getattr(answer, "error", ""):
            raise RuntimeError("nobody caught this")

    patch.setattr(ControlPlane, "_reply", reply)
