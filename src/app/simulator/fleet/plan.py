"""What is simulated: sizes, a seed, and the faults that will happen. All of it is data that can be stored."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from ....adapters.memory.frontend_nodes import Generation
from ....domain.errors import WorkerError

QUIET_S = 22 * 60.0  # at the end, without faults: the longest wait of a frontend is 15 minutes
HEALS_FROM_S = 45 * 60.0  # a shorter run has no such quiet end, so healing is not judged
PORTS_PER_NODE = 16
GENERATIONS = ("seed", "newer")
_STORE_EVERY = 4
_SMALL = 64  # nodes
TOKEN = "fleet-token"  # noqa: S105 - nobody is kept out by it


@dataclass(eq=False)
class WrongPlan(WorkerError):
    """A plan that cannot be played; `right` says what it must be."""

    name: str
    value: object
    right: str

    def __str__(self) -> str:
        return f"{self.name} is {self.value!r}; it must be {self.right}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """One simulated time of one fleet. Rates are by node and hour; `models` 0: half as many as nodes.

    `speak` is the generation of the frontend's protocol.
    """

    nodes: int = 20
    hours: float = 2.0
    seed: int = 0
    faults: str = "default"
    models: int = 0
    requests: float = 20.0
    operations: float = 1.5
    speak: str = "newer"

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= 100_000:
            raise WrongPlan("nodes", self.nodes, "between 1 and 100000")
        if not 0 < self.hours <= 24 * 366:
            raise WrongPlan("hours", self.hours, "above 0 and at most a year (8784)")
        if self.speak not in GENERATIONS:
            raise WrongPlan("speak", self.speak, f"one of {', '.join(GENERATIONS)}")

    @property
    def generation(self) -> Generation:
        """The frontend's, at the beginning and at the end."""
        return "seed" if self.speak == "seed" else "newer"

    @property
    def duration_s(self) -> float:
        return self.hours * 3600

    @property
    def is_long(self) -> bool:
        """Whether it ends with a time without faults that is long enough to judge healing."""
        return self.duration_s >= HEALS_FROM_S

    @property
    def faults_end_s(self) -> float:
        """From here on nothing is broken any more."""
        return self.duration_s - QUIET_S if self.is_long else self.duration_s * 0.6

    @property
    def model_count(self) -> int:
        return self.models or max(6, self.nodes // 2)

    def has_store(self, number: int) -> bool:
        """Whether that machine has the object store: every fourth has, in a large fleet every sixteenth."""
        return number % (_STORE_EVERY if self.nodes <= _SMALL else 4 * _STORE_EVERY) == 1

    def random(self, *names: object) -> random.Random:
        """The numbers of one part of the simulation: what other parts draw does not change them."""
        return random.Random(f"{self.seed}/" + "/".join(map(str, names)))  # noqa: S311 - it has to repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong: `kind` (see `faults.KINDS`) from `at_s` on, for `for_s` seconds.

    `nodes` are the numbers of those it hits, none where it hits what all share. `number` tells kinds apart
    that need one more figure, such as the await point of a kill.
    """

    at_s: float
    kind: str
    nodes: tuple[int, ...] = ()
    for_s: float = 0.0
    number: int = 0

    def __str__(self) -> str:
        whom = f" on {', '.join(map(node_name, self.nodes))}" if self.nodes else ""
        lasting = f" for {self.for_s:.0f} s" if self.for_s else ""
        return f"{self.at_s:.1f} s: {self.kind}{whom}{lasting}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A plan with its faults, up to `until_s` (0: its end): whoever plays it gets the same history."""

    plan: FleetPlan
    faults: tuple[Fault, ...]
    until_s: float = 0.0

    @property
    def end_s(self) -> float:
        return self.until_s or self.plan.duration_s

    def with_faults(self, faults: Sequence[Fault]) -> Self:
        return replace(self, faults=tuple(faults))

    def to_json(self) -> dict[str, Any]:
        """Values that json can write."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """What `to_json` gave.

        Raises:
            WrongPlan: it is something else.
        """
        try:
            return cls(
                plan=FleetPlan(**_known(FleetPlan, values["plan"])),
                faults=tuple(
                    Fault(**{**_known(Fault, each), "nodes": tuple(each["nodes"])})
                    for each in values["faults"]
                ),
                until_s=float(values["until_s"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WrongPlan("replay file", str(error), "one that `simulate fleet` wrote") from error


def node_name(number: int) -> str:
    """The name of a node, which is also the host in its addresses."""
    return f"node-{number:05}"


def _known(of: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(of)}
    return {name: value for name, value in values.items() if name in names}
