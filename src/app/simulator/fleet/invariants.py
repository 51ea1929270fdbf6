"""What must hold at every step of a simulation, whatever goes wrong.

| name | what must never happen |
|---|---|
| two-owners | two process groups live that were started for one port |
| released-early | a process lives whose port the worker has given back |
| wrong-address | an address is handed out at which another process answers than the one it was asked for |
| no-rest | a port goes to another replica within its 15 s of rest |
| no-reply, late-reply, two-replies | a request is answered not once, or after the frontend has given up |
| internal-error | a reply tells of an exception that nobody foresaw |
| orphan | a process lives for a minute that the worker does not know |
| ghost | the worker's table names a process for a minute that is dead |
| torn-file | a file or a backend appears that is not whole |
| stale-object | a file counts as fetched or staged that is not what the object store held meanwhile |
| cache-limit | the object cache holds more than its limit although nobody wants it |
| stuck-lock | a lock is held for half an hour |
| growth | a service remembers more than there is to remember |
| not-healed | after a quiet time a node or a replica that is wanted is missing |
| worker-ended | a worker ends that nobody stopped or killed |
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import anyio

from ....adapters.memory.frontend_nodes import NodeStatus
from ..cluster import Cluster
from .fence import behind
from .holdings import holdings
from .host import Host, key_of
from .life import Life
from .machine_rules import MachineRules
from .object_rules import ObjectRules
from .objects import FleetObjectStore
from .plan import PORTS_PER_NODE
from .reply_rules import ReplyRules
from .violations import Verdict

SETTLED_S = 60.0  # a process without an entry, or the other way round, may be on its way for so long
LOCK_S = 1800.0
_SPARE = 48  # what a service may hold besides one thing for every model, backend and port there is
_TASKS = 64


@dataclass
class _Seen:
    """What is out of order on a host, and since when; `dirty`: it has to be looked at."""

    strange: dict[str, float] = field(default_factory=dict)
    dirty: bool = True


@dataclass(eq=False)
class Invariants:
    """All rules; `inspect` is for what only shows over time."""

    verdict: Verdict
    store: FleetObjectStore
    things: int  # models, backends and ports of a node: more than about so many nobody has to remember
    replies: ReplyRules = field(init=False)
    machines: MachineRules = field(init=False)
    objects: ObjectRules = field(init=False)
    _seen: dict[int, _Seen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.replies = ReplyRules(self.verdict)
        self.machines = MachineRules(self.verdict, self.replies)
        self.objects = ObjectRules(self.verdict, self.store)
        self.replies.checks.update(self.objects.checks)

    def born(self, life: Life) -> None:
        """A worker begins."""
        self._seen[life.host.number] = _Seen()
        self.replies.born(life)

    def gone(self, life: Life) -> None:
        """A worker was killed or has ended."""
        self.remembered(life)
        self.replies.gone(life)
        if not life.fence.down and (life.failure is not None or not life.stopping):
            self.verdict.fault("worker-ended", life.host, repr(life.failure))

    def remembered(self, life: Life) -> None:
        """Look for services of a worker that forget nothing."""
        bound = self.things + _SPARE
        for path, size in holdings(life.worker, "worker"):
            if size > bound:
                self.verdict.fault("growth", life.host, f"{path} holds {size}, more than {bound}")
        if life.tasks > bound + _TASKS:
            self.verdict.fault("growth", life.host, f"{life.tasks} tasks, more than {bound + _TASKS}")
        self.objects.within_limit(life)

    def touched(self, host: Host) -> None:
        """Something changed on the host."""
        if seen := self._seen.get(host.number):
            seen.dirty = True

    def inspect(self, life: Life) -> None:
        """Compare what the worker believes with what the machine shows."""
        self.replies.overdue(life)
        host = life.host
        seen = self._seen[host.number]
        if life.ready_s is None or not (seen.dirty or seen.strange):
            return
        now_s = anyio.current_time()
        strange = self._strangeness(life)
        for what, limit_s in strange.items():
            if now_s - seen.strange.setdefault(what, now_s) >= limit_s:
                invariant, _, text = what.partition(": ")
                self.verdict.fault(invariant, host, text)
        for what in seen.strange.keys() - strange.keys():
            del seen.strange[what]
        seen.dirty = False

    def _strangeness(self, life: Life) -> dict[str, float]:
        """What is out of order now, with how long it may be."""
        supervisor, host = life.worker.supervisor, life.host
        found: dict[str, float] = {}
        known: set[int] = set()
        entries = supervisor.table.entries
        for entry in entries.values():
            process = behind(entry.spawned.process) if entry.spawned else None
            if process is None:
                continue
            known.add(process.pid)
            if not process.group_alive():
                found[f"ghost: {entry.key} has an entry, but its process {process.pid} is dead"] = SETTLED_S
        leased = supervisor.ports.leased
        for started in host.groups:
            name = f"{key_of(started)} (pid {started.pid}, port {started.port})"
            if started.pid not in known:
                found[f"orphan: {name} runs, and the worker does not know it"] = SETTLED_S
            elif started.port not in leased:
                found[f"released-early: {name} runs, and its port is free"] = 0.0
        if locks := len(life.worker.control.backends.installer.locks):
            found[f"stuck-lock: {locks} backend locks are held"] = LOCK_S
        for what, size in (("the process table", len(entries)), ("the port pool", len(leased))):
            if size > PORTS_PER_NODE:
                found[f"growth: {what} holds {size}, more than {PORTS_PER_NODE}"] = 0.0
        return found

    def healed(self, hosts: Iterable[Host], cluster: Cluster, life_on: Callable[[str], Life | None]) -> None:
        """At the end of a quiet time: every node is healthy, every wanted replica is there."""
        for host in hosts:
            row = cluster.registry.named(host.name)
            if row is None or row.status is not NodeStatus.HEALTHY:
                status = row.status.value if row else "unknown to the frontend"
                self.verdict.fault("not-healed", host, f"the node is {status}")
            life = life_on(host.name)
            if life is None or not life.is_up:
                self.verdict.fault("not-healed", host, "no worker takes commands")
        for policy in cluster.policies.values():
            there = sum(1 for _ in cluster.replicas(policy.model))
            if there < policy.min_replicas:
                what = f"{policy.model} has {there} replicas of {policy.min_replicas} wanted"
                self.verdict.fault("not-healed", None, what)
