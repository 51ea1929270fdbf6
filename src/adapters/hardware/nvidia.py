"""NVIDIA's devices, by its management library (NVML)."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...domain.ports.hardware import Gpu
from .sysfs import nvidia_soc
from .visible import NVIDIA_VARIABLES, visible

_SHARED_MEMORY_NAMES = ("gb10", "thor")  # Source: LocalAI pkg/xsysinfo
# Any of these shows a driver; where there is none, pynvml is not even imported (it is 8,000 lines).
_DRIVER_TRACES = (
    "proc/driver/nvidia",
    "dev/nvidiactl",
    "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
    "usr/lib64/libnvidia-ml.so.1",
    "usr/lib/libnvidia-ml.so.1",
    "usr/lib/wsl/lib/libnvidia-ml.so.1",
    "run/opengl-driver/lib/libnvidia-ml.so.1",
)


def import_nvml() -> Any:
    """The module of nvidia-ml-py."""
    import pynvml

    return pynvml


class NvidiaDevices:
    """Reads the devices that CUDA_VISIBLE_DEVICES leaves, in the driver's order; a device in MIG mode is
    the instances it is divided into.

    The library stays initialised: on a machine without other users, closing it would let the driver
    shut the devices down, and the next reading would take seconds.
    """

    def __init__(
        self,
        sysroot: Path,
        load: Callable[[], Any] = import_nvml,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._sysroot = sysroot
        self._load = load
        self._environment = environment or {}
        self._initialised = False

    def read(self) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
        """The devices, and a line for each that could not be read. None without a driver.

        Raises OSError or pynvml's NVMLError if the driver does not talk to us at all.
        """
        nvml = self._library()
        if nvml is None:
            return (), ()
        devices: list[tuple[str, list[tuple[str, Gpu]]]] = []
        warnings: list[str] = []
        for index in range(self._count(nvml)):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                devices.append((_text(nvml.nvmlDeviceGetUUID(handle)), list(self._parts(nvml, handle))))
            except nvml.NVMLError as error:
                warnings.append(f"nvidia device {index}: {error}")
                devices.append(("", []))  # it keeps its position
        return tuple(self._visible(devices)), tuple(warnings)

    def used_by_process(self) -> Mapping[int, int]:
        """Bytes in use by process id, as this process sees them, summed over all devices.

        Raises OSError or pynvml's NVMLError if the driver does not talk to us.
        """
        used = defaultdict[int, int](int)
        nvml = self._library()
        for index in range(self._count(nvml) if nvml is not None else 0):
            with suppress(nvml.NVMLError):  # this device does not tell
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                    used[process.pid] += process.usedGpuMemory or 0
        return used

    def _library(self) -> Any:
        """The library, ready for use; None where there is no driver."""
        if not any((self._sysroot / trace).exists() for trace in _DRIVER_TRACES):
            return None
        nvml = self._load()
        if not self._initialised:
            try:
                nvml.nvmlInit()
            except nvml.NVMLError_LibraryNotFound as error:
                hint = "a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility"
                raise OSError(f"the driver is there, its library is not; {hint}") from error
            self._initialised = True
        return nvml

    def _count(self, nvml: Any) -> int:
        try:
            return int(nvml.nvmlDeviceGetCount())
        except nvml.NVMLError:
            self._initialised = False  # the driver was replaced, perhaps: start over next time
            with suppress(nvml.NVMLError):
                nvml.nvmlShutdown()
            raise

    def _visible(self, devices: list[tuple[str, list[tuple[str, Gpu]]]]) -> Iterator[Gpu]:
        """What the environment leaves: instances where it names instances, else whole devices."""
        if any("MIG-" in self._environment.get(name, "").upper() for name in NVIDIA_VARIABLES):
            instances = [part for _, parts in devices for part in parts]
            yield from (gpu for _, gpu in visible(instances, self._environment, NVIDIA_VARIABLES))
            return
        for _, parts in visible(devices, self._environment, NVIDIA_VARIABLES):
            yield from (gpu for _, gpu in parts)

    def _parts(self, nvml: Any, handle: Any) -> Iterator[tuple[str, Gpu]]:
        """Identifier and device: the device itself, or the instances of one in MIG mode."""
        mode = _supported(nvml, nvml.nvmlDeviceGetMigMode, handle)
        if mode is None or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            yield _text(nvml.nvmlDeviceGetUUID(handle)), self._read_device(nvml, handle, handle)
            return
        for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            with suppress(nvml.NVMLError_NotFound):  # not every slot is taken
                instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
                yield _text(nvml.nvmlDeviceGetUUID(instance)), self._read_device(nvml, instance, handle)

    def _read_device(self, nvml: Any, handle: Any, whole: Any) -> Gpu:
        """The device `handle`, which is `whole` or an instance of it."""
        name = _text(nvml.nvmlDeviceGetName(handle))
        memory = _supported(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        tells = memory is not None and memory.total > 0
        capability = _supported(nvml, nvml.nvmlDeviceGetCudaComputeCapability, whole)
        shares = any(part in name.lower() for part in _SHARED_MEMORY_NAMES) or bool(nvidia_soc(self._sysroot))
        return Gpu(
            vendor="nvidia",
            name=name,
            total_bytes=memory.total if tells else None,
            free_bytes=memory.free if tells else None,
            unified=shares and not tells,
            compute_capability="{}.{}".format(*capability) if capability is not None else "",
        )


def _supported(nvml: Any, question: Callable[[Any], Any], handle: Any) -> Any:
    with suppress(nvml.NVMLError_NotSupported):
        return question(handle)


def _text(value: str | bytes) -> str:
    """Older versions of the library give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
