"""The `HardwareProbe` of this machine."""

import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...domain.ports.hardware import Gpu, Hardware, Memory
from .nvidia import NvidiaDevices, import_nvml
from .probe import Probe
from .ram import limited, machine_memory
from .sysfs import cuda_directories, nvidia_soc, read_cards

READ_S = 5.0  # the port's bound
_GO_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv6l": "arm",
    "armv7l": "arm",
    "i386": "386",
    "i686": "386",
}  # where Go's name is not the machine's own


@dataclass(frozen=True, slots=True)
class _Board:
    """What sysfs tells."""

    cards: tuple[Gpu, ...] = ()
    nvidia_soc: str = ""
    cuda_directories: frozenset[int] = frozenset()


@dataclass
class LocalHardware:
    """Asks the NVIDIA driver, sysfs and the kernel's memory counters, each in a thread of its own.

    One that fails or hangs costs nothing but freshness: its last good answer stands, with a warning.
    Every device the drivers show is counted, whatever CUDA_VISIBLE_DEVICES says.
    """

    sysroot: Path = Path("/")
    timeout_s: float = READ_S
    load_nvml: Callable[[], Any] = import_nvml
    machine_memory: Callable[[], Memory] = machine_memory
    _nvidia: Probe[tuple[tuple[Gpu, ...], tuple[str, ...]]] = field(init=False)
    _board: Probe[_Board] = field(init=False)
    _ram: Probe[Memory] = field(init=False)

    def __post_init__(self) -> None:
        self._nvidia = Probe("nvidia", NvidiaDevices(self.sysroot, self.load_nvml).read)
        self._board = Probe("sysfs", self._read_board)
        self._ram = Probe("memory", lambda: limited(self.machine_memory(), self.sysroot))

    async def read(self) -> Hardware:
        self._nvidia.start()
        self._board.start()
        self._ram.start()
        devices, no_nvidia = await self._nvidia.answer(self.timeout_s)
        known_board, no_board = await self._board.answer(self.timeout_s)
        ram, no_ram = await self._ram.answer(self.timeout_s)
        nvidia, lost = devices or ((), ())
        board = known_board or _Board()
        gpus = (*nvidia, *board.cards)
        if not gpus and board.nvidia_soc:
            gpus = (
                Gpu(vendor="nvidia", name=board.nvidia_soc, total_bytes=None, free_bytes=None, unified=True),
            )
        return Hardware(
            gpus=tuple(_sharing(gpu, ram) for gpu in gpus),
            ram=ram,
            architecture=go_architecture(platform.machine()),
            system=platform.system().lower(),
            cuda_directories=board.cuda_directories,
            warnings=(*lost, *(warning for warning in (no_nvidia, no_board, no_ram) if warning)),
        )

    def _read_board(self) -> _Board:
        return _Board(read_cards(self.sysroot), nvidia_soc(self.sysroot), cuda_directories(self.sysroot))


def go_architecture(machine: str) -> str:
    """What Go calls the architecture that `uname -m` calls `machine`."""
    name = machine.lower()
    return _GO_ARCHITECTURES.get(name, name)


def _sharing(gpu: Gpu, ram: Memory | None) -> Gpu:
    """A unified device has the RAM as its memory."""
    if not gpu.unified or ram is None:
        return gpu
    return replace(gpu, total_bytes=ram.total_bytes, free_bytes=ram.available_bytes)
