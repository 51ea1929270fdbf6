"""Open files in memory: what a test says is open."""

from dataclasses import dataclass, field
from pathlib import Path

from anyio.lowlevel import checkpoint


@dataclass
class InMemoryOpenFiles:
    """`OpenFiles` of a machine where the files in `opened` are open."""

    opened: set[Path] = field(default_factory=set)

    async def among(self, paths: frozenset[Path]) -> frozenset[Path]:
        await checkpoint()
        return paths & self.opened
