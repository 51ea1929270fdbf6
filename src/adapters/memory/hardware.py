"""A node that is made of whatever one says."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from anyio.lowlevel import checkpoint

from ...domain.ports.hardware import Hardware, Memory

_GIB = 1024**3


@dataclass
class InMemoryHardware:
    """A `HardwareProbe` whose `reading` can be replaced at any time; at first a plain CPU node.

    `vram` is what each process group holds.
    """

    reading: Hardware = field(
        default_factory=lambda: Hardware(
            ram=Memory(16 * _GIB, 12 * _GIB), architecture="amd64", system="linux"
        )
    )
    vram: dict[int, int] = field(default_factory=dict)

    async def read(self) -> Hardware:
        await checkpoint()
        return self.reading

    async def vram_by_group(self) -> Mapping[int, int]:
        await checkpoint()
        return {group: used for group, used in self.vram.items() if used}
