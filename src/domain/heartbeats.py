"""Keeping the node known to the frontend: heartbeats, and what their answers mean."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from .enrol import PENDING, Enrolment
from .errors import FrontendRefused, FrontendUnavailable, NodeForgotten, WorkerError
from .node import NodeId
from .outcome_log import OutcomeLog

log = logging.getLogger(__name__)

_FORGOTTEN_AFTER = 3  # heartbeats in a row that are answered with 404
_APPROVAL_POLL_S = 30.0

Moved = Callable[[NodeId, NodeId], Awaitable[None]]
"""Awaited after each registration of a running worker, with the id before and the id now."""


@dataclass
class Heartbeats:
    """Beats for the node of `enrolment` every `interval_s` seconds. One per worker.

    Raises:
        ValueError: `interval_s` is no interval.
    """

    enrolment: Enrolment
    interval_s: float = 10.0
    _trouble: WorkerError | None = None

    def __post_init__(self) -> None:
        if not self.interval_s > 0:
            raise ValueError(f"an interval between heartbeats is longer than 0 s, not {self.interval_s:g} s")

    @property
    def worries(self) -> tuple[str, ...]:
        """What is wrong with the latest heartbeat; one line."""
        if self._trouble is None:
            return ()
        if isinstance(self._trouble, FrontendRefused) and self._trouble.status in {401, 403}:
            return ("the frontend refuses the registration token: check LOCALAI_REGISTRATION_TOKEN",)
        return (f"heartbeats fail: {self._trouble}",)

    async def beat_forever(self, moved: Moved) -> None:
        """Send a heartbeat at once and then at every interval, until cancelled.

        A failed beat is logged and the next one tried: missing one costs nothing, the frontend gives a
        node 60 s. Three 404s in a row mean that the frontend has forgotten the node (one alone may be a
        hiccup of its database): the node registers again, as it is now, and `moved` is awaited (H-18). The
        frontend then has no rows of what runs here; its next install of a model finds the process again.
        A pending node also asks whether it is approved by now, which nobody tells it.
        """
        outcome = OutcomeLog("heartbeats", log)
        forgotten = 0
        asked_s = anyio.current_time()
        while True:
            forgotten = await self._beat(outcome, forgotten)
            if forgotten == _FORGOTTEN_AFTER:
                forgotten = 0
                log.error("the frontend has forgotten node %s: registering again", self.enrolment.node_id)
                old = await self.enrolment.register_again()
                await moved(old, self.enrolment.node_id)
                continue
            if self._pending and anyio.current_time() >= asked_s + _APPROVAL_POLL_S:
                asked_s = anyio.current_time()
                old = self.enrolment.node_id
                if await self.enrolment.ask_for_approval():
                    await moved(old, self.enrolment.node_id)
            await anyio.sleep(self.enrolment.spread(self.interval_s))

    @property
    def _pending(self) -> bool:
        registered = self.enrolment.registered
        return registered is not None and registered.status == PENDING and self._trouble is None

    async def _beat(self, outcome: OutcomeLog, forgotten: int) -> int:
        """Send one heartbeat; how many in a row were answered with 404 by now."""
        try:
            beat = await self.enrolment.heartbeat()
            await self.enrolment.frontend.heartbeat(self.enrolment.node_id, beat)
        except NodeForgotten as error:
            self._trouble = error
            forgotten += 1
            outcome.failed(f"heartbeat refused ({forgotten} of {_FORGOTTEN_AFTER})", error, logging.WARNING)
            return forgotten
        except FrontendRefused as error:
            self._trouble = error
            outcome.failed("heartbeat refused", error, logging.ERROR)
        except FrontendUnavailable as error:
            self._trouble = error
            outcome.failed("heartbeat missed", error, logging.WARNING)
        else:
            self._trouble = None
            outcome.worked()
        return 0
