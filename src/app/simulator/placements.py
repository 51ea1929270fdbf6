"""Which replica answers on which address, and its row in the registry.

Source: LocalAI core/services/nodes/{router,registry}.go.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ...adapters.memory.frontend_registry import NodeRegistry
from ...domain.messages.node_status import LoadedModel
from ...domain.node import NodeId

_LOADED = "loaded"


@dataclass(frozen=True, slots=True)
class Placement:
    """One replica of `model` (or, without one, of the backend itself) on a node."""

    node_id: NodeId
    model: str
    replica: int
    backend: str


@dataclass
class Placements:
    """What installs returned, by address. Addresses that no install returned have no row to keep."""

    registry: NodeRegistry
    _by_address: dict[str, Placement] = field(default_factory=dict)
    _reserved: set[str] = field(default_factory=set)  # loaded, and not yet asked anything

    def put(self, address: str, placement: Placement) -> None:
        """An install returned `address`."""
        self._by_address[address] = placement

    def get(self, address: str) -> Placement | None:
        """Who answers on `address`."""
        return self._by_address.get(address)

    def loaded(self, address: str) -> None:
        """Make the row of a model just loaded; one request is reserved for it."""
        placed = self._known(address)
        if placed is None:
            return
        row = LoadedModel(
            id=f"{placed.node_id}/{placed.model}#{placed.replica}",
            node_id=placed.node_id,
            model_name=placed.model,
            replica_index=None if self.registry.generation == "seed" else placed.replica,
            address=address,
            state=_LOADED,
            in_flight=1,
            backend_type=placed.backend,
        )
        self.registry.put_model(placed.node_id, row)
        self._reserved.add(address)

    @contextmanager
    def in_flight(self, address: str) -> Iterator[None]:
        """Count one request; the first after a load also ends the load's reservation."""
        self._count(address, +1)
        try:
            yield
        finally:
            self._count(address, -1)
            if address in self._reserved:
                self._reserved.discard(address)
                self._count(address, -1)

    def stopped(self, node_id: NodeId, backend: str) -> None:
        """Drop the rows a stop of `backend` (a model, a `model#N`, or "" for all) means."""
        rows = self.registry.row(node_id).models
        for model, replica in list(rows):
            if backend in {"", model, f"{model}#{replica}"}:
                del rows[model, replica]

    def _count(self, address: str, change: int) -> None:
        if placed := self._known(address):
            self.registry.add_in_flight(placed.node_id, placed.model, change, replica_index=placed.replica)

    def _known(self, address: str) -> Placement | None:
        """The placement whose node the registry still has."""
        placed = self._by_address.get(address)
        return placed if placed and placed.node_id in self.registry.nodes else None
