"""NVIDIA's devices, by its management library (NVML)."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...domain.ports.hardware import Gpu
from .sysfs import nvidia_soc

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
    """Reads all devices the driver shows, in its order; CUDA_VISIBLE_DEVICES is not looked at.

    The library stays initialised: on a machine without other users, closing it would let the driver
    shut the devices down, and the next reading would take seconds.
    """

    def __init__(self, sysroot: Path, load: Callable[[], Any] = import_nvml) -> None:
        self._sysroot = sysroot
        self._load = load
        self._initialised = False

    def read(self) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
        """The devices, and a line for each that could not be read. None without a driver.

        Raises OSError or pynvml's NVMLError if the driver does not talk to us at all.
        """
        if not any((self._sysroot / trace).exists() for trace in _DRIVER_TRACES):
            return (), ()
        nvml = self._load()
        if not self._initialised:
            try:
                nvml.nvmlInit()
            except nvml.NVMLError_LibraryNotFound as error:
                hint = "a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility"
                raise OSError(f"the driver is there, its library is not; {hint}") from error
            self._initialised = True
        gpus: list[Gpu] = []
        warnings: list[str] = []
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError:
            self._initialised = False  # the driver was replaced, perhaps: start over next time
            with suppress(nvml.NVMLError):
                nvml.nvmlShutdown()
            raise
        for index in range(count):
            try:
                gpus.append(self._read_device(nvml, nvml.nvmlDeviceGetHandleByIndex(index)))
            except nvml.NVMLError as error:
                warnings.append(f"nvidia device {index}: {error}")
        return tuple(gpus), tuple(warnings)

    def _read_device(self, nvml: Any, handle: Any) -> Gpu:
        def supported(question: Callable[[Any], Any]) -> Any:
            with suppress(nvml.NVMLError_NotSupported):
                return question(handle)

        name = nvml.nvmlDeviceGetName(handle)
        name = name.decode(errors="replace") if isinstance(name, bytes) else name
        memory = supported(nvml.nvmlDeviceGetMemoryInfo)
        tells = memory is not None and memory.total > 0
        capability = supported(nvml.nvmlDeviceGetCudaComputeCapability)
        shares = any(part in name.lower() for part in _SHARED_MEMORY_NAMES) or bool(nvidia_soc(self._sysroot))
        return Gpu(
            vendor="nvidia",
            name=name,
            total_bytes=memory.total if tells else None,
            free_bytes=memory.free if tells else None,
            unified=shares and not tells,
            compute_capability="{}.{}".format(*capability) if capability is not None else "",
        )
