"""The keeper: ends the backends of a worker that died and that no other came back for."""

from typing import Protocol


class Keeper(Protocol):
    """Watches the state directory's lock from outside the worker.

    When no worker holds the lock for the whole adoption window, it ends every process that the journal or
    a mark proves to be ours, and nothing else. A worker that takes the lock in time keeps them.
    """

    async def post(self) -> None:
        """Have a keeper on duty; one that is already is fine. A failure is logged: work goes on without."""

    async def dismiss(self) -> None:
        """Nothing is left to be kept: the keeper may go."""
