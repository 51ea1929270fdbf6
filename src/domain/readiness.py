"""What a node says of itself when it is asked: can work come, and what does it wait for or worry about."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .ports.bus import MessageBus
from .ports.filesystem import FileSystem

BUS_DOWN = "NATS connection is down: worker cannot receive work"
"""Source: LocalAI core/services/worker/file_transfer_server.go."""

# What the frontend's scheduler keeps free on a node besides the model: 5 % of the disk, and 1 GiB at least.
# Source: LocalAI core/services/nodes (newer).
FLOOR_SHARE, FLOOR_BYTES = 0.05, 1 << 30


class Part(Protocol):
    """A part of the worker that knows how it is."""

    @property
    def worries(self) -> tuple[str, ...]:
        """What is wrong with it, one line each; anybody may read them, so no secrets."""


@dataclass(frozen=True, slots=True)
class ReadinessReport:
    """`obstacle`: why no work can come, empty when it can; `worries`: everything else, one line each."""

    obstacle: str = ""
    worries: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether work can come."""
        return not self.obstacle

    @property
    def text(self) -> str:
        """The first line as upstream, then the worries; no line break at the end."""
        first = "ok" if self.ready else f"not ready: {self.obstacle}"
        return "\n".join((first, *(" ".join(worry.split()) for worry in self.worries)))


@dataclass
class Readiness:
    """Answers readiness checks. Only a bus that is down makes the node not ready, as upstream."""

    bus: MessageBus
    filesystem: FileSystem
    models_path: Path
    parts: Sequence[Part] = ()

    async def check(self) -> ReadinessReport:
        """The state of this moment."""
        worries = [worry for part in self.parts for worry in part.worries]
        worries += await self._disk_worries()
        return ReadinessReport("" if self.bus.connected else BUS_DOWN, tuple(worries))

    async def _disk_worries(self) -> list[str]:
        space = await self.filesystem.space(self.models_path)
        if space is None:
            return ["the disk of the models directory cannot be read"]
        floor_bytes = max(int(space.total_bytes * FLOOR_SHARE), FLOOR_BYTES)
        if space.available_bytes >= floor_bytes:
            return []
        free_gib, floor_gib = space.available_bytes / 2**30, floor_bytes / 2**30
        return [f"{free_gib:.1f} GiB free for models; below {floor_gib:.1f} GiB the frontend sends none"]
