"""The simulator finds what it should: each worker that is broken on purpose breaks its invariant."""

from dataclasses import dataclass

import pytest

from localai_worker.app.simulator.fleet.plan import Case, Fault, FleetPlan
from localai_worker.app.simulator.fleet.simulation import play
from tests import planted_faults as planted

NODES = (0, 1, 2)
SEEDS = range(4)


def lasting(kind: str, *, at_s: float = 1.0, for_s: float = 1500.0, everywhere: bool = False) -> Fault:
    return Fault(at_s=at_s, kind=kind, nodes=() if everywhere else NODES, for_s=for_s, number=7)


CRASHES = tuple(Fault(at_s=60.0 * minute, kind="crash", nodes=NODES) for minute in range(2, 14))
STRANGERS = tuple(
    Fault(at_s=1, kind="stolen-port", nodes=NODES, for_s=1500, number=port) for port in range(8)
)
KILLS = tuple(
    Fault(at_s=40.0 * time, kind="kill", nodes=NODES, for_s=5, number=11 * time) for time in range(1, 25)
)
CHANGES = tuple(
    Fault(at_s=60.0 * minute, kind="changed-object", number=6 * minute + model)
    for minute in range(3, 20)
    for model in range(6)
)
SLOW_STORE = (
    lasting("slow-store", everywhere=True),
    *(
        Fault(at_s=at_s, kind="kill", nodes=(1,), for_s=5, number=59)
        for at_s in (250.0, 550.0, 850.0, 1150.0)
    ),
)
LIES = tuple(
    Fault(at_s=1.0 + 200 * number, kind="lying-store", for_s=190, number=number) for number in range(1, 9)
)
NOTHING_TO_INSTALL = (
    lasting("registry-offline", for_s=300, everywhere=True),
    lasting("lying-registry", at_s=301, for_s=200, everywhere=True),
)


@dataclass(frozen=True)
class Planted:
    """A planted fault, what provokes it, and the invariant that must break."""

    plant: planted.Plant
    faults: tuple[Fault, ...]
    invariant: str
    hours: float = 0.4


PLANTED = (
    Planted(planted.port_released_before_death, (lasting("ignored-term"),), "released-early"),
    Planted(planted.port_without_rest, CRASHES, "no-rest"),
    Planted(planted.reply_lost_on_failure, (lasting("start-crash", for_s=600),), "no-reply"),
    Planted(planted.failure_told_twice, (lasting("start-crash", for_s=600),), "two-replies"),
    Planted(planted.stranger_taken_for_the_backend, STRANGERS, "wrong-address"),
    Planted(planted.stop_that_waits_for_nobody, (lasting("ignored-term"),), "orphan"),
    Planted(planted.lock_kept_after_a_failure, NOTHING_TO_INSTALL, "no-reply"),
    Planted(planted.death_that_nobody_cleans_up, CRASHES, "ghost"),
    Planted(
        planted.node_that_never_registers_again,
        (lasting("registry-wiped", at_s=300, for_s=5, everywhere=True),),
        "not-healed",
        hours=0.75,
    ),
    Planted(planted.journal_that_is_not_written, (lasting("kill", at_s=400, for_s=5),), "orphan"),
    Planted(planted.backend_built_in_its_place, (), "torn-file"),
    Planted(planted.cache_that_never_asks_again, CHANGES, "stale-object"),
    Planted(planted.object_that_is_visible_at_once, SLOW_STORE, "torn-file"),
    Planted(planted.fetch_that_answers_only_when_it_is_done, SLOW_STORE[:1], "no-reply"),
    Planted(planted.objects_that_are_not_checked, LIES, "torn-file"),
    Planted(planted.cache_that_is_never_swept, (), "cache-limit", hours=3),
    Planted(planted.upload_that_only_seems_done, (), "stale-object"),
    Planted(planted.exception_that_nobody_foresaw, (), "internal-error"),
    Planted(planted.service_that_forgets_no_heartbeat, (), "growth"),
    Planted(planted.upload_that_is_visible_at_once, KILLS, "torn-file"),
    Planted(
        planted.worker_that_ends_over_a_failed_command,
        (lasting("start-crash", for_s=600),),
        "worker-ended",
    ),
)


def found(case: Planted) -> list[str]:
    """The invariants that break, one for each seed, until the right one does."""
    broken = []
    for seed in SEEDS:
        plan = FleetPlan(nodes=len(NODES), hours=case.hours, seed=seed, operations=20, models=6)
        violation = play(Case(plan=plan, faults=case.faults)).violation
        broken.append(violation.invariant if violation else "none")
        if broken[-1] == case.invariant:
            break
    return broken


@pytest.mark.parametrize("case", PLANTED, ids=lambda case: case.plant.__name__)
def test_a_broken_worker_is_found(case: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    case.plant(monkeypatch)
    assert found(case)[-1] == case.invariant


def test_a_sound_worker_withstands_all_of_it() -> None:
    faults = sorted(
        {fault for case in PLANTED for fault in case.faults}, key=lambda fault: (fault.at_s, str(fault))
    )
    plan = FleetPlan(nodes=len(NODES), hours=0.4, seed=1, operations=20, models=6)
    assert play(Case(plan=plan, faults=tuple(faults))).violation is None
