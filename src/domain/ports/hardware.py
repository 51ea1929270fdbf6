"""What the node is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device the worker may use. Bytes; None where the device does not tell.

    `unified` devices share the machine's RAM. `compute_capability` is NVIDIA's `major.minor`.
    """

    vendor: str  # nvidia, amd, intel, apple, vulkan
    name: str
    total_bytes: int | None
    free_bytes: int | None
    unified: bool = False
    compute_capability: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """RAM the worker may use (a container's limit counts). Bytes; available never exceeds total."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One reading of the node.

    `gpus`: one entry per device that the worker may use, in the driver's order. `ram` is None when it could
    not be read.
    `architecture` and `system` as Go names them (`amd64`, `arm64`; `linux`, `darwin`).
    `cuda_directories`: which of `/usr/local/cuda-13`, `/usr/local/cuda-12` exist, as the major numbers.
    """

    gpus: tuple[Gpu, ...] = ()
    ram: Memory | None = None
    architecture: str = ""
    system: str = ""
    cuda_directories: frozenset[int] = frozenset()
    warnings: tuple[str, ...] = ()  # probes that failed, one line each

    @property
    def vendor(self) -> str:
        """Vendor of the GPUs with LocalAI's priority nvidia > amd > intel; "" without a GPU."""
        vendors = {gpu.vendor for gpu in self.gpus}
        return next((v for v in ("nvidia", "amd", "intel", "apple", "vulkan") if v in vendors), "")

    @property
    def total_vram_bytes(self) -> int:
        """Sum over the devices that tell; 0 without a GPU."""
        return sum(gpu.total_bytes or 0 for gpu in self.gpus)

    @property
    def free_vram_bytes(self) -> int | None:
        """Sum of the free memory; None when no device tells, so that a heartbeat leaves it out (S-B23)."""
        free = [gpu.free_bytes for gpu in self.gpus if gpu.free_bytes is not None]
        return sum(free) if free else None

    @property
    def compute_capability(self) -> str:
        """The highest NVIDIA compute capability, "" without one."""
        known = [gpu.compute_capability for gpu in self.gpus if gpu.compute_capability]
        return max(known, key=lambda text: tuple(int(part) for part in text.split(".")), default="")


class HardwareProbe(Protocol):
    async def read(self) -> Hardware:
        """Read the node now. Bounded to 5 s; a probe that fails is a warning in the result, no error."""

    async def vram_by_group(self) -> Mapping[int, int]:
        """Bytes of graphics memory in use by process group, as far as the drivers tell; bounded to 5 s.

        A group that uses none, or of which nothing is known, is left out.
        """
