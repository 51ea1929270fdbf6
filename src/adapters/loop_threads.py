"""So many threads for one kind of work, in each event loop."""

from dataclasses import dataclass, field

from anyio import CapacityLimiter
from anyio.lowlevel import RunVar


@dataclass(frozen=True)
class LoopThreads:
    """At most `number` threads at a time for what `name` says: others are kept for other work."""

    name: str
    number: int
    _limiter: RunVar[CapacityLimiter] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_limiter", RunVar(f"localai_worker {self.name}"))

    def limiter(self) -> CapacityLimiter:
        """The limiter of the running event loop; a limiter belongs to the loop it is first used in."""
        try:
            return self._limiter.get()
        except LookupError:
            limiter = CapacityLimiter(self.number)
            self._limiter.set(limiter)
            return limiter
