"""What users and administrators do to the fleet: requests by Zipf's law, and now and then an operation."""

from dataclasses import dataclass
from itertools import accumulate

import anyio

from ....adapters.memory.frontend_nodes import NodeRow, NodeStatus
from .fleet import Fleet
from .registry import BACKENDS

# What an administrator does, and how often compared with the rest.
_OPERATIONS = {
    "stop": 4,
    "model.stop": 4,
    "unload": 3,
    "backend.list": 3,
    "delete model": 1,
    "install backend": 2,
    "backend.upgrade": 2,
    "backend.delete": 1,
    "stop all": 1,
}


@dataclass(eq=False)
class Workload:
    """Asks things of the fleet's frontend until cancelled."""

    fleet: Fleet

    async def requests(self) -> None:
        """Requests for models, popular ones more often."""
        plan, frontend = self.fleet.plan, self.fleet.frontend
        draw = plan.random("requests")
        models = list(frontend.cluster.policies)
        weights = list(accumulate(1 / rank for rank in range(1, len(models) + 1)))
        per_s = plan.requests * plan.nodes / 3600
        while per_s > 0:
            await anyio.sleep(draw.expovariate(per_s))
            frontend.spawn("serve", draw.choices(models, cum_weights=weights)[0])

    async def operations(self) -> None:
        """Commands of administrators, while faults happen: afterwards nobody disturbs the healing."""
        plan = self.fleet.plan
        draw = plan.random("operations")
        kinds, weights = list(_OPERATIONS), list(accumulate(_OPERATIONS.values()))
        per_s = plan.operations * plan.nodes / 3600
        while per_s > 0:
            await anyio.sleep(draw.expovariate(per_s))
            kind = draw.choices(kinds, cum_weights=weights)[0]
            host, number = draw.choice(self.fleet.hosts), draw.random()
            if anyio.current_time() >= plan.faults_end_s:
                return
            row = self.fleet.registry.named(host.name)
            if row is not None and row.status is NodeStatus.HEALTHY:
                self._operate(kind, row, number)

    def _operate(self, kind: str, row: NodeRow, number: float) -> None:
        """Do `kind` to the node of `row`; `number`, below 1, picks among the models or backends there."""
        fleet = self.fleet
        backend = BACKENDS[int(number * len(BACKENDS))]
        if kind == "backend.list":
            fleet.frontend.spawn("operation", kind, row.id)
        elif kind in {"install backend", "backend.delete"}:
            fleet.frontend.spawn("operation", kind, row.id, backend)
        elif kind == "backend.upgrade":
            fleet.backends.publish(backend)
            fleet.frontend.spawn("operation", kind, row.id, backend)
        elif kind == "stop all":
            fleet.frontend.spawn("operation", "stop", row.id, "")
        elif row.models:
            (model, index), loaded = list(row.models.items())[int(number * len(row.models))]
            if kind == "model.stop":
                fleet.frontend.spawn("operation", kind, row.id, f"{model}#{index}", loaded.address)
            else:
                fleet.frontend.spawn("operation", kind, row.id, model)
