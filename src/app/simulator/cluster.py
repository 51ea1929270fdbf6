"""What a frontend decides: which replica answers a request, where a new one goes, what has to be scaled.

Pure: it reads the registry's rows and the time it is given, and sends nothing. The live simulator and the
fleet in virtual time both act on it.
Sources: LocalAI core/services/nodes/{router,registry,reconciler}.go.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ...adapters.memory.frontend_nodes import NodeRow, NodeStatus
from ...adapters.memory.frontend_registry import NodeRegistry
from ...domain.errors import WorkerError
from ...domain.messages.node_status import LoadedModel
from ...domain.node import NodeId

_GIB = 1 << 30
_HEADROOM_SHARE = 0.05  # of the payload, and at least 1 GiB; 2 GiB where the size is not known
_UNKNOWN_SIZE_BYTES = 2 * _GIB
IDLE_S = 5 * 60.0  # how long a replica above the floor may be idle before it goes

Place = tuple[NodeId, int]
"""A node and a replica index on it."""


@dataclass(eq=False)
class NoNodeFor(WorkerError):
    """No node can take a replica now; `why` says what they lack."""

    model: str
    why: str

    def __str__(self) -> str:
        return f"no healthy node for model {self.model}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPolicy:
    """What is known of a model and wanted of it. Sizes are bytes, 0 where nothing is known.

    `min_replicas` and `max_replicas` (0: no limit) are the reconciler's; without both it leaves the model
    alone.
    """

    model: str
    backend: str
    min_replicas: int = 0
    max_replicas: int = 0
    selector: Mapping[str, str] = field(default_factory=dict)
    vram_bytes: int = 0
    size_bytes: int = 0

    @property
    def floor(self) -> int:
        """Replicas that idleness never takes."""
        return max(self.min_replicas, 1)


@dataclass
class _Note:
    """What the cluster remembers of a replica besides its row, in seconds of the caller's clock."""

    used_s: float
    probed_s: float
    misses: int = 0


@dataclass
class Cluster:
    """The registry's nodes together with the policies; times are seconds that only grow.

    Replicas are found by model without a walk over all nodes; rows that a registration, a drain or a
    silence has deleted are noticed when they are looked at.
    """

    registry: NodeRegistry
    policies: dict[str, ModelPolicy] = field(default_factory=dict)
    _replicas: dict[str, dict[Place, _Note]] = field(default_factory=dict)
    _reserved: dict[Place, dict[str, None]] = field(default_factory=dict)  # places of loads under way
    _loads: Counter[NodeId] = field(default_factory=Counter)  # how many of these places a node has

    def noted(self, model: str, place: Place, now_s: float) -> None:
        """A replica was loaded, its row stands in the registry."""
        self._replicas.setdefault(model, {})[place] = _Note(used_s=now_s, probed_s=now_s)

    def used(self, model: str, place: Place, now_s: float) -> None:
        """A replica answered, which is also a probe."""
        if note := self._replicas.get(model, {}).get(place):
            note.used_s = note.probed_s = now_s
            note.misses = 0

    def drop(self, model: str, place: Place) -> None:
        """Forget a replica and its row."""
        node_id, index = place
        if row := self.registry.nodes.get(node_id):
            row.models.pop((model, index), None)
        self._replicas.get(model, {}).pop(place, None)

    def replicas(self, model: str) -> Iterator[tuple[Place, LoadedModel]]:
        """The rows of `model` on healthy nodes."""
        notes = self._replicas.get(model, {})
        for place in tuple(notes):
            node = self.registry.nodes.get(place[0])
            row = node.models.get((model, place[1])) if node else None
            if node is None or row is None:
                del notes[place]
            elif node.status is NodeStatus.HEALTHY:
                yield place, row

    def pick(self, model: str) -> tuple[Place, LoadedModel] | None:
        """The replica for a request: least in flight, then longest unused; it must match the selector."""
        selector = self.policies[model].selector
        notes = self._replicas.get(model, {})
        fitting = [
            (place, row)
            for place, row in self.replicas(model)
            if _matches(self.registry.nodes[place[0]], selector)
        ]
        return min(fitting, key=lambda each: (each[1].in_flight, notes[each[0]].used_s), default=None)

    def place(self, policy: ModelPolicy, nodes: Iterable[NodeRow]) -> Place:
        """Where among `nodes` a new replica goes: enough free VRAM, idle ones first; then an idle node; then
        the least loaded. The place is reserved until `release`.

        Raises:
            NoNodeFor: nobody has room, or a free replica slot.
        """
        healthy = [row for row in nodes if row.status is NodeStatus.HEALTHY and row.node_type == "backend"]
        matching = [row for row in healthy if _matches(row, policy.selector)]
        if not matching:
            raise NoNodeFor(
                policy.model, f"{len(healthy)} nodes are healthy, none matches {dict(policy.selector)}"
            )
        roomy = [row for row in matching if has_disk_room(row, policy.size_bytes)]
        if not roomy:
            raise NoNodeFor(policy.model, f"none of {len(matching)} has disk for {policy.size_bytes} bytes")
        open_slots = [
            (row, index) for row in roomy if (index := self.free_index(row, policy.model)) is not None
        ]
        if not open_slots:
            raise NoNodeFor(policy.model, f"every replica slot of {len(roomy)} nodes is taken")
        place = min(open_slots, key=lambda each: self._preference(each[0], policy))
        chosen = (place[0].id, place[1])
        if chosen not in self._reserved:
            self._loads[chosen[0]] += 1
        self._reserved.setdefault(chosen, {})[policy.model] = None
        return chosen

    def release(self, model: str, place: Place) -> None:
        """The load for which `place` was reserved is over, well or not."""
        models = self._reserved.get(place, {})
        models.pop(model, None)
        if not models and self._reserved.pop(place, None) is not None:
            self._loads[place[0]] -= 1
            if not self._loads[place[0]]:
                del self._loads[place[0]]

    def free_index(self, row: NodeRow, model: str) -> int | None:
        """The lowest replica index of `model` that is free on the node; None when all are taken.

        A seed frontend knows one replica a node.
        """
        slots = 1 if self.registry.generation == "seed" else max(row.max_replicas_per_model, 1)
        for index in range(slots):
            if (model, index) not in row.models and model not in self._reserved.get((row.id, index), {}):
                return index
        return None

    def victim(self, rows: Iterable[NodeRow]) -> tuple[str, Place] | None:
        """The replica that goes when room is needed: longest unused, idle, its model above its minimum."""
        idle = [
            (note.used_s, model, (row.id, index))
            for row in rows
            if row.status is NodeStatus.HEALTHY
            for (model, index), loaded in row.models.items()
            if loaded.in_flight == 0
            and (note := self._replicas.get(model, {}).get((row.id, index))) is not None
            and self._above_minimum(model)
        ]
        return min(idle)[1:] if idle else None

    def missing(self, policy: ModelPolicy) -> int:
        """How many replicas the reconciler adds now: up to the minimum, or one where all are busy."""
        rows = [row for _, row in self.replicas(policy.model)]
        if len(rows) < policy.min_replicas:
            return policy.min_replicas - len(rows)
        capped = policy.max_replicas and len(rows) >= policy.max_replicas
        scaled = policy.min_replicas or policy.max_replicas
        return int(bool(scaled and rows and not capped and all(row.in_flight for row in rows)))

    def superfluous(self, policy: ModelPolicy, now_s: float) -> Place | None:
        """The replica that the reconciler takes away: the longest idle one above the floor."""
        rows = list(self.replicas(policy.model))
        notes = self._replicas.get(policy.model, {})
        idle = [
            (notes[place].used_s, place)
            for place, row in rows
            if row.in_flight == 0 and now_s - notes[place].used_s > IDLE_S
        ]
        return min(idle)[1] if idle and len(rows) > policy.floor else None

    def unprobed(self, row: NodeRow, older_than_s: float) -> list[tuple[str, int]]:
        """Models and indices of the node's rows that nobody has heard of since `older_than_s`."""
        return [
            (model, index)
            for model, index in row.models
            if (note := self._replicas.get(model, {}).get((row.id, index))) and note.probed_s < older_than_s
        ]

    def probed(self, model: str, place: Place, *, alive: bool, limit: int, now_s: float) -> None:
        """What a probe of a replica said; `limit` misses in a row end its row."""
        note = self._replicas.get(model, {}).get(place)
        if note is None:
            return
        note.probed_s = now_s
        note.misses = 0 if alive else note.misses + 1
        if note.misses >= limit:
            self.drop(model, place)

    def _above_minimum(self, model: str) -> bool:
        policy = self.policies.get(model)
        return policy is None or sum(1 for _ in self.replicas(model)) > policy.min_replicas

    def _preference(self, row: NodeRow, policy: ModelPolicy) -> tuple[int, int, int, str]:
        """Smallest first; ties end at the node's name, so that equal clusters decide alike."""
        in_flight = sum(model.in_flight for model in row.models.values())
        loads = self._loads[row.id]
        short_of_vram = bool(policy.vram_bytes) and row.available_vram < policy.vram_bytes
        busy = bool(row.models) or loads > 0
        rank = 2 if short_of_vram and busy else int(busy or short_of_vram)
        return rank, in_flight + loads if busy else 0, -row.available_vram, row.name


def has_disk_room(row: NodeRow, size_bytes: int) -> bool:
    """Whether the payload fits with headroom; a node that reports no disk is thought to have room."""
    if row.total_disk == 0:
        return True
    if not size_bytes:
        return row.available_disk >= _UNKNOWN_SIZE_BYTES
    return row.available_disk >= size_bytes + max(int(size_bytes * _HEADROOM_SHARE), _GIB)


def _matches(row: NodeRow, selector: Mapping[str, str]) -> bool:
    return all(row.labels.get(key) == value for key, value in selector.items())
