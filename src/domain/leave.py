"""How a node leaves: no new work, the requests in flight awaited, and only then marked as gone."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from .errors import FrontendRefused, FrontendUnavailable
from .node import NodeId
from .outcome_log import OutcomeLog
from .ports.frontend import FrontendClient

log = logging.getLogger(__name__)

_POLL_S = 1.0


@dataclass(frozen=True)
class Departure:
    """The leaving of one node; `busy` tells whether this machine sees requests being served."""

    frontend: FrontendClient
    node_id: NodeId
    busy: Callable[[], Awaitable[bool]]
    drain_s: float

    async def drain(self) -> None:
        """Ask for no new work and wait, `drain_s` seconds at most, until nothing is in flight.

        Two must agree on that: the frontend by its rows, which newer ones delete as they drain (S-K15), and
        this machine by `busy`. A frontend that does not take the drain is not asked for its rows.
        """
        draining = True
        try:
            await self.frontend.drain(self.node_id)
        except (FrontendUnavailable, FrontendRefused) as error:
            draining = False
            log.warning("drain failed, stopping without it: node=%s error=%s", self.node_id, error)
        lists = OutcomeLog("lists of models", log)
        with anyio.move_on_after(self.drain_s) as limit:
            while (draining and await self._in_flight(lists)) or await self.busy():
                await anyio.sleep(_POLL_S)
        if limit.cancelled_caught:
            log.warning("requests still in flight after %g s; stopping all the same", self.drain_s)

    async def deregister(self) -> None:
        """Mark the node offline, then draining: an offline node whose last beat is young is flipped back
        to healthy by the frontend's monitor, a draining one is left alone (H-16).
        """
        try:
            await self.frontend.deregister(self.node_id)
            await self.frontend.drain(self.node_id)
        except (FrontendUnavailable, FrontendRefused) as error:
            log.warning("deregistration failed: node=%s error=%s", self.node_id, error)
        else:
            log.info("deregistered: node=%s", self.node_id)

    async def _in_flight(self, outcome: OutcomeLog) -> bool:
        try:
            rows = await self.frontend.loaded_models(self.node_id)
        except (FrontendUnavailable, FrontendRefused) as error:
            outcome.failed("cannot ask what is in flight, waiting", error, logging.WARNING)
            return True
        outcome.worked()
        return sum(row.in_flight for row in rows) > 0
