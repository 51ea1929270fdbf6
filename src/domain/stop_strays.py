"""Ending what left the process group it was started in: daemons of an engine, in sessions of their own."""

import logging
from dataclasses import dataclass, field

import anyio

from .backend import ReplicaKey
from .ports.processes import MarkedGroup, Process, Processes
from .stop_group import StopLadder

log = logging.getLogger(__name__)

_GRACE_S = 1.0  # their backend has had its grace already


@dataclass
class _Look:
    """One look at every process of the machine, shared by all who asked before it began."""

    groups: tuple[MarkedGroup, ...] | None = None  # None: it has not succeeded
    over: anyio.Event = field(default_factory=anyio.Event)


@dataclass
class StopStrays:
    """Finds processes by the mark of their launch, wherever they went, and ends them.

    Such a look takes milliseconds and grows with the machine, so stops at the same time share one.
    """

    processes: Processes
    _next: _Look | None = None
    _looking: anyio.Lock = field(default_factory=anyio.Lock)

    async def end(self, key: ReplicaKey, mark: str, ladder: StopLadder) -> None:
        """End every group with `mark`; return when none is left. Without a mark there is nothing to find.

        Raises:
            GroupSurvived: one outlived KILL.
        """
        if not mark:
            return
        short = StopLadder(min(ladder.grace_s, _GRACE_S), ladder.kill_s)
        strays = [group.process for group in await self._look(mark.partition(".")[0]) if group.mark == mark]
        for process in strays:
            await self._end_one(key, process, short)

    async def _end_one(self, key: ReplicaKey, process: Process, ladder: StopLadder) -> None:
        log.info("ending what left its backend's group: replica=%s process_group=%d", key, process.pid)
        await ladder.descend(key, process)

    async def _look(self, owner: str) -> tuple[MarkedGroup, ...]:
        while (look := self._next) is not None:
            await look.over.wait()
            if look.groups is not None:
                return look.groups
        look = self._next = _Look()
        try:
            async with self._looking:
                self._next = None  # who comes from now on needs a later look
                look.groups = await self.processes.marked(owner)
                return look.groups
        finally:
            if self._next is look:
                self._next = None
            look.over.set()
