"""The `HardwareProbe` of this machine."""

import os
import platform
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...domain.ports.hardware import Gpu, Hardware, Memory
from .amd import AmdDevices
from .drm_clients import used_by_process
from .intel import IntelDevices
from .nvidia import NvidiaDevices, import_nvml
from .others import OtherDevices
from .probe import Probe
from .ram import limited, machine_memory
from .sysfs import cuda_directories, nvidia_soc
from .tools import Tools

READ_S = 5.0  # the port's bound
_GO_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv6l": "arm",
    "armv7l": "arm",
    "i386": "386",
    "i686": "386",
}  # where Go's name is not the machine's own


# Devices, and a line for each that could not be read.
_Devices = tuple[tuple[Gpu, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Board:
    """What the machine's own description tells."""

    nvidia_soc: str = ""
    cuda_directories: frozenset[int] = frozenset()


@dataclass
class LocalHardware:
    """Asks the drivers, the vendors' tools and the kernel's counters, each in a thread of its own.

    One that fails or hangs costs nothing but freshness: its last good answer stands, with a warning.
    `environment` is where the tools are looked for (`PATH`), and what may hide devices
    (`CUDA_VISIBLE_DEVICES` and AMD's like). Vulkan and Apple are asked only where no other device was found.
    """

    sysroot: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = READ_S
    load_nvml: Callable[[], Any] = import_nvml
    machine_memory: Callable[[], Memory] = machine_memory
    system: str = field(default_factory=lambda: platform.system().lower())
    _nvml: NvidiaDevices = field(init=False)
    _nvidia: Probe[_Devices] = field(init=False)
    _amd: Probe[_Devices] = field(init=False)
    _intel: Probe[_Devices] = field(init=False)
    _others: Probe[tuple[Gpu, ...]] = field(init=False)
    _board: Probe[_Board] = field(init=False)
    _ram: Probe[Memory] = field(init=False)
    _used: Probe[Mapping[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        tools = Tools(self.environment)
        self._nvml = NvidiaDevices(self.sysroot, self.load_nvml, self.environment)
        self._nvidia = Probe("nvidia", self._nvml.read)
        self._amd = Probe("amd", AmdDevices(self.sysroot, tools).read)
        self._intel = Probe("intel", IntelDevices(self.sysroot, tools).read)
        self._others = Probe("gpu", OtherDevices(tools, self.system).read)
        self._board = Probe("board", self._read_board)
        self._ram = Probe("memory", lambda: limited(self.machine_memory(), self.sysroot))
        self._used = Probe("vram", self._read_used)

    async def read(self) -> Hardware:
        vendors = (self._nvidia, self._amd, self._intel)
        for probe in (*vendors, self._board, self._ram):
            probe.start()
        gpus: tuple[Gpu, ...] = ()
        warnings: list[str] = []
        for vendor in vendors:
            answered, failure = await vendor.answer(self.timeout_s)
            devices, lost = answered or ((), ())
            gpus += devices
            warnings += [*lost, *filter(None, [failure])]
        known_board, no_board = await self._board.answer(self.timeout_s)
        board = known_board or _Board()
        ram, no_ram = await self._ram.answer(self.timeout_s)
        if not gpus and board.nvidia_soc:
            soc = Gpu(vendor="nvidia", name=board.nvidia_soc, total_bytes=None, free_bytes=None, unified=True)
            gpus = (soc,)
        if not gpus and not warnings:  # a vendor that fails today had devices, perhaps: do not rename them
            self._others.start()
            others, failure = await self._others.answer(self.timeout_s)
            gpus = others or ()
            warnings += filter(None, [failure])
        return Hardware(
            gpus=tuple(_sharing(gpu, ram) for gpu in gpus),
            ram=ram,
            architecture=go_architecture(platform.machine()),
            system=self.system,
            cuda_directories=board.cuda_directories,
            warnings=(*warnings, *filter(None, [no_board, no_ram])),
        )

    async def vram_by_group(self) -> Mapping[int, int]:
        self._used.start()
        used, _ = await self._used.answer(self.timeout_s)
        return used or {}

    def _read_board(self) -> _Board:
        return _Board(nvidia_soc(self.sysroot), cuda_directories(self.sysroot))

    def _read_used(self) -> Mapping[int, int]:
        by_group = defaultdict[int, int](int)
        for by_process in (self._nvml.used_by_process(), used_by_process(self.sysroot)):
            for pid, used_bytes in by_process.items():
                if used_bytes:
                    with suppress(ProcessLookupError):  # ended meanwhile, or of another pid namespace
                        by_group[os.getpgid(pid)] += used_bytes
        return by_group


def go_architecture(machine: str) -> str:
    """What Go calls the architecture that `uname -m` calls `machine`."""
    name = machine.lower()
    return _GO_ARCHITECTURES.get(name, name)


def _sharing(gpu: Gpu, ram: Memory | None) -> Gpu:
    """A unified device that tells nothing of its own has the RAM as its memory."""
    if not gpu.unified or gpu.total_bytes is not None or ram is None:
        return gpu
    return replace(gpu, total_bytes=ram.total_bytes, free_bytes=ram.available_bytes)
