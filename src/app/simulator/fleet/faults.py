"""What goes wrong, how often and how long. The schedule is drawn from the seed beforehand."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .plan import Case, Fault, FleetPlan, WrongPlan

_WARM_UP_S = 120.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault: how often it happens, by node and hour or in the fleet, and how long it lasts."""

    name: str
    says: str
    per_node_hour: float = 0.0
    per_hour: float = 0.0
    lasts_s: tuple[float, float] = (0.0, 0.0)
    share: float = 0.0  # of the nodes it hits at once, of those that happen fleet-wide; 0: what all share


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("bus-loss", "messages are lost", per_hour=0.5, lasts_s=(20, 120)),
        Kind(
            "bus-delay",
            "messages come up to 5 s late, subjects overtake each other",
            per_hour=1,
            lasts_s=(30, 300),
        ),
        Kind(
            "bus-partition",
            "part of the nodes is cut off from the bus",
            per_hour=1,
            lasts_s=(5, 240),
            share=0.3,
        ),
        Kind("bus-restart", "the bus is away for everybody", per_hour=0.5, lasts_s=(1, 30)),
        Kind("echo", "every command to a node is sent twice", per_node_hour=0.05, lasts_s=(60, 300)),
        Kind("frontend-restart", "the frontend restarts", per_hour=0.5, lasts_s=(2, 40)),
        Kind("registry-wiped", "the frontend restarts and knows nobody", per_hour=0.3, lasts_s=(2, 40)),
        Kind(
            "frontend-replaced",
            "a frontend of the other generation takes over for a while",
            per_hour=0.2,
            lasts_s=(300, 1800),
        ),
        Kind("frontend-errors", "the frontend answers nodes with 503", per_hour=0.5, lasts_s=(0, 0)),
        Kind("heartbeat-gap", "a node does not reach the frontend", per_node_hour=0.1, lasts_s=(15, 200)),
        Kind(
            "kill",
            "a worker is killed at some step; another one starts",
            per_node_hour=0.15,
            lasts_s=(0.5, 60),
        ),
        Kind(
            "long-death",
            "a worker is killed and comes back after minutes",
            per_node_hour=0.04,
            lasts_s=(100, 400),
        ),
        Kind(
            "torn-journal", "a worker is killed and its journal damaged", per_node_hour=0.05, lasts_s=(1, 60)
        ),
        Kind(
            "reboot", "a machine loses power; its worker starts again", per_node_hour=0.08, lasts_s=(5, 120)
        ),
        Kind(
            "restart",
            "a worker is stopped in good order and started again",
            per_node_hour=0.05,
            lasts_s=(1, 60),
        ),
        Kind("crash", "a backend dies", per_node_hour=0.3),
        Kind("slow-start", "backends take 15 s to a minute to start", per_node_hour=0.1, lasts_s=(60, 400)),
        Kind("start-crash", "backends die as they start", per_node_hour=0.1, lasts_s=(60, 300)),
        Kind("hang-in-free", "backends never return from Free", per_node_hour=0.1, lasts_s=(60, 600)),
        Kind("ignored-term", "backends ignore SIGTERM", per_node_hour=0.1, lasts_s=(60, 600)),
        Kind(
            "left-child",
            "backends leave a child behind that only SIGKILL ends",
            per_node_hour=0.1,
            lasts_s=(60, 600),
        ),
        Kind(
            "stolen-port", "a stranger listens on a port of the range", per_node_hour=0.15, lasts_s=(30, 900)
        ),
        Kind("disk-full", "the disk is full", per_node_hour=0.08, lasts_s=(30, 600)),
        Kind("slow-registry", "downloads take minutes", per_hour=0.5, lasts_s=(120, 900)),
        Kind("lying-registry", "payloads break off half-way", per_hour=0.5, lasts_s=(60, 600)),
        Kind("registry-offline", "gallery and registry are away", per_hour=0.5, lasts_s=(60, 600)),
        Kind("store-offline", "the object store is away", per_hour=0.3, lasts_s=(30, 600)),
        Kind(
            "slow-store",
            "every answer of the object store takes up to 240 s",
            per_hour=0.3,
            lasts_s=(60, 900),
        ),
        Kind(
            "lying-store",
            "the object store tells a wrong length or ETag, or sends wrong bytes",
            per_hour=0.3,
            lasts_s=(30, 600),
        ),
        Kind("changed-object", "a model's object is replaced by another, or deleted", per_hour=2),
        Kind("clock-jump", "a machine's clock jumps by up to a day", per_node_hour=0.05),
    )
}

PROFILES: dict[str, Callable[[Kind], float]] = {
    "none": lambda _kind: 0.0,
    "default": lambda _kind: 1.0,
    "storm": lambda _kind: 5.0,
}
"""How much of each kind's rate a profile takes. A kind is a profile too: itself, five times as often."""


def schedule(plan: FleetPlan) -> Case:
    """The faults of `plan`, in order of time.

    Raises:
        WrongPlan: nobody knows its profile.
    """
    names = plan.faults.split(",")
    unknown = [name for name in names if name not in PROFILES and name not in KINDS]
    if unknown:
        right = f"one of {', '.join(PROFILES)}, or kinds with commas between: {', '.join(KINDS)}"
        raise WrongPlan("faults", unknown[0], right)
    faults: list[Fault] = []
    for kind in KINDS.values():
        factor = sum(PROFILES[name](kind) for name in names if name in PROFILES)
        factor += 5.0 * (kind.name in names)
        faults += _of_kind(kind, factor, plan)
    return Case(
        plan=plan, faults=tuple(sorted(faults, key=lambda fault: (fault.at_s, fault.kind, fault.nodes)))
    )


def _of_kind(kind: Kind, factor: float, plan: FleetPlan) -> list[Fault]:
    draw = plan.random("faults", kind.name)
    per_s = factor * (kind.per_node_hour * plan.nodes + kind.per_hour) / 3600
    faults = []
    at_s = _WARM_UP_S
    while per_s > 0:
        at_s += draw.expovariate(per_s)
        if at_s >= plan.faults_end_s:
            break
        lasts_s = min(draw.uniform(*kind.lasts_s), plan.faults_end_s - at_s)
        faults.append(
            Fault(
                at_s=round(at_s, 3),
                kind=kind.name,
                nodes=_whom(kind, draw, plan),
                for_s=round(lasts_s, 3),
                number=draw.randrange(1 << 20),
            )
        )
    return faults


def _whom(kind: Kind, draw: Random, plan: FleetPlan) -> tuple[int, ...]:
    if kind.per_node_hour:
        return (draw.randrange(plan.nodes),)
    if kind.share:
        return tuple(
            sorted(draw.sample(range(plan.nodes), max(1, round(kind.share * plan.nodes * draw.random()))))
        )
    return ()
