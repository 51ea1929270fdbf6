"""The stop ladder: TERM to the whole group, grace, KILL to the whole group, and proof that it is gone."""

from dataclasses import dataclass

import anyio

from .backend import ReplicaKey
from .ports.processes import Process, StopSignal
from .supervision_errors import GroupSurvived

_POLL_S = 0.02  # how often the group is looked at; a stop is not a hot path


@dataclass(frozen=True, slots=True)
class StopLadder:
    """How long each rung lasts, in seconds.

    Every member of the group counts, not only the leader: engine workers that ignore TERM hold GPU
    memory after their leader is gone (N-B8).
    """

    grace_s: float = 15.0
    kill_s: float = 5.0

    async def descend(self, key: ReplicaKey, process: Process) -> None:
        """End the group of `process`; return when no member is left.

        Raises:
            GroupSurvived: members still run `kill_s` seconds after KILL.
        """
        if not process.group_alive():
            return
        if process.exit is None:
            process.signal_group(StopSignal.TERM)
            if await self._gone(process, self.grace_s):
                return
        process.signal_group(StopSignal.KILL)
        if not await self._gone(process, self.kill_s):
            raise GroupSurvived(key, process.pid, self.kill_s)

    async def _gone(self, process: Process, limit_s: float) -> bool:
        with anyio.move_on_after(limit_s):
            await process.wait()
            while process.group_alive():
                await anyio.sleep(_POLL_S)
            return True
        return not process.group_alive()
