"""The frontend's background jobs: health monitor, reconciler, and probes of rows nobody has heard of.

Sources: LocalAI core/services/nodes/{health,reconciler}.go (storage-and-frontend sheet 2.6).
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from ...domain.errors import BackendUnavailable, BackendUnhealthy, WorkerError
from .live import LiveFrontend

log = logging.getLogger(__name__)

MONITOR_S = 15.0
RECONCILE_S = 30.0
_STALE_ROW_S = 120.0
_PROBE_S = 1.0
_MISSES = 3  # of the newer generation; a seed frontend drops a row at the first
_UNLISTED = 2  # models.running without the row


@dataclass
class Housekeeping:
    """The jobs of one frontend; each pass can also be run by hand."""

    frontend: LiveFrontend

    async def run(self) -> None:
        """Every job at its interval, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._every, MONITOR_S, self.monitor)
            tasks.start_soon(self._every, RECONCILE_S, self.reconcile)

    async def monitor(self) -> None:
        """One pass of the health monitor."""
        registry = self.frontend.commands.registry
        registry.monitor(registry.clock.now())

    async def reconcile(self) -> None:
        """One pass of the reconciler: probe what is stale, then scale every model with bounds."""
        await self.probe()
        for policy in tuple(self.frontend.cluster.policies.values()):
            try:
                await self._scale(policy.model)
            except WorkerError as error:
                log.warning("not scaled: model=%s error=%s", policy.model, error)

    async def probe(self) -> None:
        """Ask after every row of which nobody has heard for two minutes."""
        frontend, now_s = self.frontend, anyio.current_time()
        for row in tuple(frontend.commands.registry.nodes.values()):
            stale = frontend.cluster.unprobed(row, now_s - _STALE_ROW_S)
            if not stale:
                continue
            listed: set[tuple[str, int]] | None = None
            if not frontend.is_seed:
                try:
                    running = await frontend.commands.running_models(row.id)
                    listed = {(model.model_id, model.replica_index) for model in running}
                except WorkerError as error:
                    log.warning("no inventory: node=%s error=%s", row.name, error)
            for model, index in stale:
                if listed is not None:
                    alive, limit = (model, index) in listed, _UNLISTED
                else:
                    alive = await self._answers(row.models[model, index].address)
                    limit = 1 if frontend.is_seed else _MISSES
                frontend.cluster.probed(model, (row.id, index), alive=alive, limit=limit, now_s=now_s)

    async def _scale(self, model: str) -> None:
        frontend = self.frontend
        policy = frontend.cluster.policies[model]
        missing = frontend.cluster.missing(policy)
        for _ in range(missing):
            await frontend.load(model)
        if not missing and (place := frontend.cluster.superfluous(policy, anyio.current_time())):
            await frontend.evict(model, place)

    async def _answers(self, address: str) -> bool:
        try:
            await self.frontend.commands.inference.health(address, timeout_s=_PROBE_S)
        except (BackendUnavailable, BackendUnhealthy):
            return False
        return True

    async def _every(self, interval_s: float, job: Callable[[], Awaitable[None]]) -> None:
        while True:
            await anyio.sleep(interval_s)
            await job()
