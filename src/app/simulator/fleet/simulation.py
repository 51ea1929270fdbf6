"""One simulation from its case to its outcome."""

import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import anyio

from ...virtual_time import run_in_virtual_time
from .fault_player import FaultPlayer
from .figures import SAMPLES, Figures, Sample
from .fleet import Fleet
from .history import History
from .invariants import Invariants
from .objects import FleetObjectStore
from .plan import PORTS_PER_NODE, Case
from .registry import BACKENDS
from .violations import Verdict, Violation
from .workload import Workload

_INSPECT_S = 60.0
_REMEMBERED_EVERY = 30  # inspections; and whenever a worker ends
_REMEMBERED_AT_ONCE = 64  # workers in that time: a large fleet takes turns
_COLLECT_SELDOM = (50_000, 20, 50)  # Python's own thresholds cost a large fleet a tenth of its time

Progress = Callable[[float], None]
"""Hears the virtual time, in seconds, now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a case. `digest` is the hash of the whole event log, `latest` its end."""

    case: Case
    digest: str
    events: int
    figures: Figures
    violation: Violation | None
    latest: tuple[str, ...]


def play(case: Case, progress: Progress | None = None) -> Outcome:
    """Simulate `case` to its end, or to the first violation."""
    with _undisturbed():
        return run_in_virtual_time(_Simulation(case, progress or (lambda _at_s: None)).run)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without log lines, of which a fleet writes millions, and without collecting what lives to the end."""
    before, thresholds = logging.root.manager.disable, gc.get_threshold()
    logging.disable(logging.CRITICAL)
    gc.disable()  # while the fleet is made
    gc.set_threshold(*_COLLECT_SELDOM)
    try:
        yield
    finally:
        logging.disable(before)
        gc.enable()
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@dataclass(eq=False)
class _Simulation:
    case: Case
    progress: Progress
    history: History = field(default_factory=History)
    figures: Figures = field(default_factory=Figures)

    async def run(self) -> Outcome:
        case = self.case
        with anyio.CancelScope() as whole:
            objects = FleetObjectStore(random=case.plan.random("objects"))
            things = case.plan.model_count + len(BACKENDS) + PORTS_PER_NODE
            rules = Invariants(Verdict(self.history, whole.cancel), objects, things)
            fleet = Fleet(case.plan, self.history, rules, self.figures)
            workload = Workload(fleet)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fleet.run)
                tasks.start_soon(FaultPlayer(fleet).play, case.faults)
                tasks.start_soon(workload.requests)
                tasks.start_soon(workload.operations)
                tasks.start_soon(self._inspect, fleet)
                tasks.start_soon(self._sample, fleet)
                await anyio.sleep_until(min(60.0, case.end_s))
                gc.freeze()  # without a collection: it takes long, and little is garbage yet
                gc.enable()
                await anyio.sleep_until(case.end_s)
                self._sample_now(fleet)
                for life in fleet.lives[:: self._turns]:
                    rules.remembered(life)
                if case.plan.is_long and case.end_s >= case.plan.duration_s:
                    rules.healed(fleet.hosts, fleet.frontend.cluster, fleet.life_on)
                self.history.close()
                tasks.cancel_scope.cancel()
        return Outcome(
            case=case,
            digest=self.history.digest,
            events=self.history.events,
            figures=self.figures,
            violation=rules.verdict.violation,
            latest=tuple(self.history.latest),
        )

    @property
    def _turns(self) -> int:
        return max(1, self.case.plan.nodes // _REMEMBERED_AT_ONCE)

    async def _inspect(self, fleet: Fleet) -> None:
        for minute in count():
            await anyio.sleep(_INSPECT_S)
            for life in fleet.lives:
                fleet.rules.touched(life.host)
                fleet.rules.inspect(life)
                if (minute + life.host.number) % (_REMEMBERED_EVERY * self._turns) == 0:
                    fleet.rules.remembered(life)

    async def _sample(self, fleet: Fleet) -> None:
        every_s = self.case.end_s / SAMPLES
        while True:
            await anyio.sleep(every_s)
            self._sample_now(fleet)
            self.progress(anyio.current_time())

    def _sample_now(self, fleet: Fleet) -> None:
        now_s = anyio.current_time()
        states = Counter(row.status.value for row in fleet.registry.nodes.values())
        if unknown := len(fleet.hosts) - states.total():
            states["unknown"] = unknown
        leased = resting = workers = 0
        for life in fleet.lives:
            workers += life.is_up
            pool = life.worker.supervisor.ports
            leased += len(pool.leased)
            resting += pool.resting(now_s)
        cluster = fleet.frontend.cluster
        self.figures.samples.append(
            Sample(
                at_s=now_s,
                nodes=dict(sorted(states.items())),
                workers=workers,
                wanted=sum(policy.min_replicas for policy in cluster.policies.values()),
                loaded=sum(len(row.models) for row in fleet.registry.nodes.values()),
                running=sum(len(host.groups) for host in fleet.hosts),
                ports_leased=leased,
                ports_resting=resting,
            )
        )
