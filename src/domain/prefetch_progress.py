"""How far prefetching is: a node that fetches gigabytes before it registers is not to be taken for dead."""

from dataclasses import dataclass, field


@dataclass
class PrefetchProgress:
    """What is fetched now, and which models could not be had."""

    missing: list[str] = field(default_factory=list)
    _now: str = ""

    def fetching(self, model: str, number: int, of: int) -> None:
        """`model` is fetched now, the `number`th `of` so many."""
        self._now = f"model {number} of {of} is being prefetched: {model}"

    def ended(self) -> None:
        """Nothing more is fetched."""
        self._now = ""

    @property
    def worries(self) -> tuple[str, ...]:
        """For readiness checks."""
        missing = f"models not prefetched, the log tells why: {', '.join(self.missing)}"
        return (*filter(None, [self._now]), *([missing] if self.missing else []))
