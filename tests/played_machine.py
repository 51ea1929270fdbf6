"""A machine played for the hardware probes: a tree that stands for `/`, and NVIDIA's library."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml

from localai_worker.adapters.hardware.local import LocalHardware
from localai_worker.domain.ports.hardware import Hardware, Memory

GIB = 1024**3
MIB = 1024**2
MACHINE = Memory(64 * GIB, 48 * GIB)
RECORDINGS = Path(__file__).parent / "hardware"


@dataclass
class Tree:
    """A directory that stands for `/`."""

    root: Path

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def card(self, number: str, vendor: str, **files: str) -> None:
        for name, text in {"vendor": vendor, **files}.items():
            self.write(f"sys/class/drm/{number}/device/{name}", f"{text}\n")

    def program(self, name: str, script: str) -> None:
        """A vendor's tool: a shell script on the PATH of this machine."""
        self.write(f"usr/bin/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)

    def prints(self, name: str, recording: str) -> None:
        """A tool that prints `tests/hardware/<recording>`."""
        self.program(name, f"exec cat '{RECORDINGS / recording}'")

    def probe(self, nvml: Any = None, **environment: str) -> LocalHardware:
        environment = {"PATH": f"{self.root}/usr/bin:/usr/bin:/bin", **environment}
        return LocalHardware(
            self.root, environment, load_nvml=lambda: nvml, machine_memory=lambda: MACHINE, system="linux"
        )

    async def read(self, nvml: Any = None, **environment: str) -> Hardware:
        return await self.probe(nvml, **environment).read()


@dataclass
class Device:
    name: str | bytes
    total: int | None
    free: int = 0
    capability: tuple[int, int] | None = (9, 0)
    lost: bool = False
    uuid: str = ""
    instances: list["Device"] | None = None  # of a device in MIG mode; None is one without
    processes: dict[int, int] = field(default_factory=dict)  # bytes by process id


@dataclass
class Driver:
    """The part of pynvml that is used, over devices made up here; errors are pynvml's own."""

    devices: list[Device] = field(default_factory=list)
    failure: int | None = None
    initialised: int = 0

    NVMLError = pynvml.NVMLError
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError_LibraryNotFound = pynvml.NVMLError_LibraryNotFound
    NVMLError_NotFound = pynvml.NVMLError_NotFound
    NVML_DEVICE_MIG_ENABLE = pynvml.NVML_DEVICE_MIG_ENABLE

    def nvmlInit(self) -> None:  # noqa: N802 - the library's names
        self._fail()
        self.initialised += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.initialised -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._fail()
        assert self.initialised == 1
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:  # noqa: N802
        if self.devices[index].lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return self.devices[index]

    def nvmlDeviceGetName(self, device: Device) -> str | bytes:  # noqa: N802
        return device.name

    def nvmlDeviceGetMemoryInfo(self, device: Device) -> Device:  # noqa: N802
        if device.total is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return device

    def nvmlDeviceGetCudaComputeCapability(self, device: Device) -> tuple[int, int]:  # noqa: N802
        if device.capability is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return device.capability

    def nvmlDeviceGetUUID(self, device: Device) -> str:  # noqa: N802
        return device.uuid

    def nvmlDeviceGetMigMode(self, device: Device) -> list[int]:  # noqa: N802
        if device.instances is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [pynvml.NVML_DEVICE_MIG_ENABLE, pynvml.NVML_DEVICE_MIG_ENABLE]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Device) -> int:  # noqa: N802
        assert device.instances is not None
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Device, index: int) -> Device:  # noqa: N802
        assert device.instances is not None
        if index >= len(device.instances):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return device.instances[index]

    def nvmlDeviceGetComputeRunningProcesses(self, device: Device) -> list[Any]:  # noqa: N802
        if device.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in device.processes.items()]

    def _fail(self) -> None:
        if self.failure is not None:
            raise pynvml.NVMLError(self.failure)
