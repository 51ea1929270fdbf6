"""Recovery: what an earlier worker left running is taken over, ended, or left alone (D5).

Taken over is what is provably ours and healthy. What is provably ours and not healthy is ended, as is what
carries our mark and is not in the journal. Everything else belongs to somebody else and is not touched.
"""

import logging
from dataclasses import dataclass, field, replace

import anyio

from .allocate_ports import PortLease, PortPool
from .backend import ReplicaKey
from .custody import Custody
from .errors import BackendUnavailable, BackendUnhealthy, WorkerError
from .ports.backend_client import BackendClient
from .ports.processes import Listening, Process, Processes
from .process_journal import JournalRecord, ProcessJournal
from .supervise import Supervisor

log = logging.getLogger(__name__)

_HEALTH_S = 5.0  # newer frontends give a backend that may be busy as long
_TIMED_OUT = "DEADLINE_EXCEEDED"


@dataclass
class Recovered:
    """What became of what was found: the journal's replicas, and the groups that were in no journal."""

    adopted: list[ReplicaKey] = field(default_factory=list)
    ended: list[ReplicaKey] = field(default_factory=list)
    gone: list[ReplicaKey] = field(default_factory=list)
    orphans: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.adopted, self.ended, self.gone, self.orphans))


@dataclass(frozen=True)
class RecoverBackends:
    """Run once, inside `supervisor.running()`, before the node takes commands."""

    custody: Custody
    journal: ProcessJournal
    processes: Processes
    client: BackendClient
    supervisor: Supervisor
    ports: PortPool
    health_s: float = _HEALTH_S

    async def run(self) -> Recovered:
        """Decide about everything that was left behind, side by side; Health and the stop ladder bound it."""
        recovered = Recovered()
        async with anyio.create_task_group() as tasks:
            for record in await self.journal.read():
                tasks.start_soon(self._settle, record, recovered)
        await self._sweep(recovered)
        if recovered.orphans:
            # Their ports are in no journal, and the frontend's rows may still name them (D7).
            await anyio.sleep(self.ports.rest_s)
        if recovered.adopted:
            await self.custody.keep_watch()
        if recovered:
            log.info(
                "recovered: adopted=%d ended=%d gone=%d orphans=%d",
                len(recovered.adopted),
                len(recovered.ended),
                len(recovered.gone),
                len(recovered.orphans),
            )
        return recovered

    async def _settle(self, record: JournalRecord, recovered: Recovered) -> None:
        process = await self.processes.find(record.process)
        if process is None:
            log.warning(
                "backend is gone, it ended while no worker ran: replica=%s pid=%d",
                record.key,
                record.process.pid,
            )
            await self._let_port_rest(record)
            recovered.gone.append(record.key)
            return
        problem = await self._problem(record, process)
        if self.supervisor.table.get(record.key) is not None:
            # Two records of one replica: no worker writes that, but a disk may have been copied together.
            recovered.orphans.append(process.pid)
            await self._end_orphan(process)
            await self.journal.forget(process.pid)
        elif problem:
            await self._end(record, process, problem)
            recovered.ended.append(record.key)
        else:
            self.supervisor.adopt(record, process, ready=True)
            if not record.ready:
                await self.journal.keep(replace(record, ready=True))
            log.info(
                "backend adopted: replica=%s backend=%s pid=%d port=%d",
                record.key,
                record.backend,
                process.pid,
                record.port,
            )
            recovered.adopted.append(record.key)

    async def _problem(self, record: JournalRecord, process: Process) -> str:
        """Why the process cannot be handed out again; "" if it can."""
        if record.port not in self.ports.ports:
            span = f"{self.ports.ports.start}-{self.ports.ports.stop - 1}"
            return f"its port {record.port} is outside the range {span} of now"
        listening = await process.listening(record.port)
        if listening is Listening.NOBODY:
            return f"it does not listen on its port {record.port}"
        if listening is Listening.FOREIGN:
            return f"another program listens on its port {record.port}"
        try:
            await self.client.health(f"127.0.0.1:{record.port}", timeout_s=self.health_s)
        except BackendUnhealthy as error:
            return str(error)
        except BackendUnavailable as error:
            # It has been ready once, its own socket takes connections and does not answer in time: many
            # backends answer nothing while they compute (N-878a0d00a). To end it would cut that request.
            if error.code == _TIMED_OUT and record.ready:
                log.warning("backend does not answer, taken for busy: replica=%s", record.key)
                return ""
            return str(error)
        return ""

    async def _end(self, record: JournalRecord, process: Process, problem: str) -> None:
        """End it as the supervisor would: one that survives keeps its entry and its port."""
        log.warning("backend not adopted, ending it: replica=%s pid=%d: %s", record.key, process.pid, problem)
        self.supervisor.adopt(record, process, ready=False)
        try:
            await self.supervisor.stop(record.key, force=True)
        except WorkerError as error:
            log.error("stop failed: replica=%s error=%s", record.key, error)

    async def _let_port_rest(self, record: JournalRecord) -> None:
        """As after any end (D7): the frontend's row may still name the port."""
        lease = PortLease(record.key, record.port)
        self.ports.claim(lease)
        self.ports.release(lease, now_s=anyio.current_time())
        await self.journal.forget(record.process.pid)

    async def _sweep(self, recovered: Recovered) -> None:
        """End what carries our mark and nobody answers for: the journal never heard of it, or lost it."""
        if self.custody.is_new:
            return  # the look at every process of the machine would lengthen the start for nothing
        known = self.supervisor.marks
        async with anyio.create_task_group() as tasks:
            for group in await self.processes.marked(self.custody.owner):
                if group.mark not in known:
                    recovered.orphans.append(group.process.pid)
                    tasks.start_soon(self._end_orphan, group.process)

    async def _end_orphan(self, process: Process) -> None:
        log.warning("orphan of an earlier worker, ending it: process_group=%d", process.pid)
        try:
            await self.supervisor.ladder.descend(ReplicaKey(f"orphan {process.pid}"), process)
        except WorkerError as error:
            log.error("stop failed: %s", error)
