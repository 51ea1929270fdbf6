"""Reading a node's hardware from trees that look like /sys and /proc, and from a driver played here."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pynvml
import pytest

from localai_worker.adapters.hardware.local import LocalHardware, go_architecture
from localai_worker.domain.ports.hardware import Gpu, Hardware, Memory

GIB = 1024**3
MIB = 1024**2
MACHINE = Memory(64 * GIB, 48 * GIB)


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


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


async def read(tree: Tree, nvml: Any = None) -> Hardware:
    return await LocalHardware(tree.root, load_nvml=lambda: nvml, machine_memory=lambda: MACHINE).read()


async def test_a_bare_machine_has_ram_and_nothing_else(tree: Tree) -> None:
    hardware = await read(tree)
    assert (hardware.gpus, hardware.ram, hardware.warnings) == ((), MACHINE, ())
    assert hardware.cuda_directories == frozenset()


async def test_amd_cards_tell_their_memory_in_sysfs(tree: Tree) -> None:
    tree.card(
        "card10", "0x1002", device="0x744c", mem_info_vram_total=str(24 * GIB), mem_info_vram_used=str(GIB)
    )
    tree.card(
        "card2", "0x1002", product_name="Instinct", mem_info_vram_total="1000", mem_info_vram_used="1001"
    )
    tree.write("sys/class/drm/card2-DP-1/device/vendor", "0x1002\n")
    tree.write("sys/class/drm/renderD128/device/vendor", "0x1002\n")
    tree.write("sys/class/drm/version", "drm 1.1.0\n")
    hardware = await read(tree)
    assert hardware.gpus == (
        Gpu(vendor="amd", name="Instinct", total_bytes=1000, free_bytes=0),
        Gpu(vendor="amd", name="amd 0x744c", total_bytes=24 * GIB, free_bytes=23 * GIB),
    )
    assert hardware.warnings == ()


async def test_amd_comes_before_intel_and_other_cards_do_not_count(tree: Tree) -> None:
    """H-c2704dba5: vendors go by PCI id; the integrated device does not hide the other one."""
    tree.card("card0", "0x8086", device="0x46a6")
    tree.card("card1", "0x1002", mem_info_vram_total="7", mem_info_vram_used="3")
    tree.card("card2", "0x1a03")
    hardware = await read(tree)
    assert [(gpu.vendor, gpu.total_bytes) for gpu in hardware.gpus] == [("amd", 7), ("intel", None)]
    assert hardware.vendor == "amd"


async def test_memory_that_is_not_told_stays_unknown(tree: Tree) -> None:
    """H-551ebdb57: what is unknown is left out, not zero."""
    tree.card("card0", "0x1002", mem_info_vram_total="7")
    tree.card("card1", "0x8086")
    hardware = await read(tree)
    assert [(gpu.total_bytes, gpu.free_bytes) for gpu in hardware.gpus] == [(7, None), (None, None)]
    assert hardware.free_vram_bytes is None


async def test_nonsense_in_sysfs_is_a_warning(tree: Tree) -> None:
    tree.card("card0", "0x1002", mem_info_vram_total="lots", mem_info_vram_used="3")
    hardware = await read(tree)
    assert hardware.gpus == ()
    assert len(hardware.warnings) == 1
    assert hardware.warnings[0].startswith("sysfs: ")
    assert hardware.ram == MACHINE


async def test_cuda_directories_are_found(tree: Tree) -> None:
    (tree.root / "usr/local/cuda-12").mkdir(parents=True)
    (tree.root / "usr/local/cuda-11").mkdir()
    assert (await read(tree)).cuda_directories == {12}
    (tree.root / "usr/local/cuda-13").mkdir()
    assert (await read(tree)).cuda_directories == {12, 13}


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"family": "Tegra\n", "soc_id": "35\n"}, "NVIDIA Jetson"),
        ({"family": "jep106:0426\n", "soc_id": "jep106:0426:8901\n"}, "NVIDIA GB10"),
        ({"family": "jep106:0426\n", "soc_id": "jep106:0426:0001\n"}, "NVIDIA Jetson"),
    ],
)
async def test_a_system_on_chip_has_the_ram_as_its_video_memory(
    tree: Tree, files: dict[str, str], name: str
) -> None:
    for file, text in files.items():
        tree.write(f"sys/devices/soc0/{file}", text)
    hardware = await read(tree)
    assert hardware.gpus == (
        Gpu(vendor="nvidia", name=name, total_bytes=64 * GIB, free_bytes=48 * GIB, unified=True),
    )


async def test_a_jetson_is_named_by_its_device_tree(tree: Tree) -> None:
    tree.write("sys/devices/soc0/family", "Tegra\n")
    tree.write("proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    assert [gpu.name for gpu in (await read(tree)).gpus] == ["NVIDIA Jetson AGX Orin Developer Kit"]


async def test_another_system_on_chip_is_no_gpu(tree: Tree) -> None:
    tree.write("sys/devices/soc0/family", "Snapdragon\n")
    tree.write("sys/devices/soc0/soc_id", "jep106:0070:0001\n")
    assert (await read(tree)).gpus == ()


# A container's view: its own group is the root of the tree.
CGROUP_2 = {
    "memory.max": f"{8 * GIB}\n",
    "memory.current": f"{3 * GIB}\n",
    "memory.stat": f"anon 1\ninactive_file {GIB}\n",
}
CGROUP_1 = {
    "memory/memory.limit_in_bytes": f"{8 * GIB}\n",
    "memory/memory.usage_in_bytes": f"{3 * GIB}\n",
    "memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}\n",
}


@pytest.mark.parametrize("files", [CGROUP_2, CGROUP_1], ids=["version 2", "version 1"])
async def test_a_containers_limit_is_the_ram(tree: Tree, files: dict[str, str]) -> None:
    """H-f0e001b7f: RAM is what the container may use, and what it uses is gone."""
    for name, text in files.items():
        tree.write(f"sys/fs/cgroup/{name}", text)
    assert (await read(tree)).ram == Memory(8 * GIB, 6 * GIB)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.max", "max\n"),
        ("memory.max", f"{1024 * GIB}\n"),
        ("memory/memory.limit_in_bytes", f"{0x7FFFFFFFFFFFF000}\n"),
        ("memory/memory.limit_in_bytes", "0\n"),
    ],
)
async def test_no_limit_or_a_wide_one_changes_nothing(tree: Tree, name: str, text: str) -> None:
    tree.write(f"sys/fs/cgroup/{name}", text)
    assert (await read(tree)).ram == MACHINE


async def test_the_tightest_group_on_the_way_up_counts(tree: Tree) -> None:
    tree.write("proc/self/cgroup", "4:cpu,memory:/v1\n0::/system.slice/worker.service\n")
    tree.write("sys/fs/cgroup/system.slice/memory.max", f"{16 * GIB}\n")
    tree.write("sys/fs/cgroup/system.slice/memory.current", f"{15 * GIB}\n")
    tree.write("sys/fs/cgroup/system.slice/worker.service/memory.max", f"{32 * GIB}\n")
    assert (await read(tree)).ram == Memory(16 * GIB, GIB)
    tree.write("sys/fs/cgroup/memory/v1/memory.limit_in_bytes", f"{2 * GIB}\n")
    assert (await read(tree)).ram == Memory(2 * GIB, GIB)


@pytest.mark.parametrize("path", ["/../outside", "/docker/0123", "/"])
async def test_a_group_that_only_the_host_knows_is_looked_for_at_the_root(tree: Tree, path: str) -> None:
    tree.write("proc/self/cgroup", f"0::{path}\n")
    tree.write("sys/fs/cgroup/memory.max", f"{8 * GIB}\n")
    tree.write("sys/fs/outside/memory.max", "1\n")
    assert (await read(tree)).ram == Memory(8 * GIB, 8 * GIB)


async def test_a_group_beyond_its_limit_has_nothing_left(tree: Tree) -> None:
    tree.write("sys/fs/cgroup/memory.max", "1000\n")
    tree.write("sys/fs/cgroup/memory.current", "2000\n")
    assert (await read(tree)).ram == Memory(1000, 0)


async def test_ram_that_cannot_be_read_is_a_warning(tree: Tree) -> None:
    tree.write("sys/fs/cgroup/memory.max", f"{8 * GIB}\n")
    tree.write("sys/fs/cgroup/memory.current", "?\n")
    hardware = await read(tree)
    assert hardware.ram is None
    assert hardware.warnings == ("memory: invalid literal for int() with base 10: '?'",)


@pytest.fixture
def pipe(tree: Tree) -> Iterator[Path]:
    """A file of sysfs that hangs whoever reads it, until somebody writes."""
    tree.card("card0", "0x1002", mem_info_vram_used="3")
    path = tree.root / "sys/class/drm/card0/device/mem_info_vram_total"
    yield path
    if path.is_fifo():  # let the reader go
        with os.fdopen(os.open(path, os.O_RDWR | os.O_NONBLOCK), "w") as end:
            end.write("0")


async def test_a_probe_that_hangs_keeps_its_last_good_answer(tree: Tree, pipe: Path) -> None:
    """H-22: a hung driver neither stops the heartbeat nor loses the devices."""
    hardware = LocalHardware(tree.root, timeout_s=60, machine_memory=lambda: MACHINE)
    pipe.write_text("7")
    known = (await hardware.read()).gpus
    assert [gpu.total_bytes for gpu in known] == [7]

    pipe.unlink()
    os.mkfifo(pipe)
    hardware.timeout_s = 0.05
    for _ in range(3):  # asked once: the second and third time it is still that question
        reading = await hardware.read()
        assert reading.gpus == known
        assert reading.ram is not None
        assert "sysfs: no answer within 0.05 s" in reading.warnings

    with pipe.open("w") as end:
        end.write("9")
    hardware.timeout_s = 60
    reading = await hardware.read()
    assert [gpu.total_bytes for gpu in reading.gpus] == [9]
    assert reading.warnings == ()


async def test_a_probe_that_hangs_from_the_start_gives_nothing(tree: Tree, pipe: Path) -> None:
    os.mkfifo(pipe)
    hardware = await LocalHardware(tree.root, timeout_s=0.05).read()
    assert hardware.gpus == ()
    assert "sysfs: no answer within 0.05 s" in hardware.warnings


def test_a_hung_probe_does_not_keep_the_program_from_ending(tree: Tree, pipe: Path) -> None:
    os.mkfifo(pipe)
    code = (
        "import anyio, sys; from pathlib import Path\n"
        "from localai_worker.adapters.hardware.local import LocalHardware\n"
        "print(anyio.run(LocalHardware(Path(sys.argv[1]), timeout_s=0.05).read).warnings)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tree.root], capture_output=True, text=True, check=True, timeout=60
    )
    assert "no answer" in done.stdout


@dataclass
class Device:
    name: str | bytes
    total: int | None
    free: int = 0
    capability: tuple[int, int] | None = (9, 0)
    lost: bool = False


@dataclass
class Driver:
    """The part of pynvml that is used, over devices made up here; errors are pynvml's own."""

    devices: list[Device] = field(default_factory=list)
    failure: int | None = None
    initialised: int = 0

    NVMLError = pynvml.NVMLError
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError_LibraryNotFound = pynvml.NVMLError_LibraryNotFound

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

    def _fail(self) -> None:
        if self.failure is not None:
            raise pynvml.NVMLError(self.failure)


@pytest.fixture
def nvidia(tree: Tree) -> Tree:
    """A machine with NVIDIA's driver."""
    tree.write("proc/driver/nvidia/version", "NVRM version\n")
    return tree


async def test_nvidia_devices_come_first_in_the_drivers_order(nvidia: Tree) -> None:
    nvidia.card("card0", "0x1002", mem_info_vram_total="7", mem_info_vram_used="3")
    driver = Driver([Device("NVIDIA H200", 141 * GIB, 140 * GIB), Device(b"NVIDIA L4", 24 * GIB, 0, (8, 9))])
    hardware = await read(nvidia, driver)
    assert hardware.gpus[:2] == (
        Gpu(
            vendor="nvidia",
            name="NVIDIA H200",
            total_bytes=141 * GIB,
            free_bytes=140 * GIB,
            compute_capability="9.0",
        ),
        Gpu(vendor="nvidia", name="NVIDIA L4", total_bytes=24 * GIB, free_bytes=0, compute_capability="8.9"),
    )
    assert [gpu.vendor for gpu in hardware.gpus] == ["nvidia", "nvidia", "amd"]
    assert hardware.compute_capability == "9.0"


@pytest.mark.parametrize("total", [None, 0])
@pytest.mark.parametrize(("name", "unified"), [("NVIDIA GB10", True), ("NVIDIA THOR", True), ("vGPU", False)])
async def test_devices_without_memory_of_their_own(
    nvidia: Tree, name: str, total: int | None, unified: bool
) -> None:
    hardware = await read(nvidia, Driver([Device(name, total, 0, None)]))
    memory = (64 * GIB, 48 * GIB) if unified else (None, None)
    (gpu,) = hardware.gpus
    assert (gpu.total_bytes, gpu.free_bytes, gpu.unified, gpu.compute_capability) == (*memory, unified, "")


async def test_on_a_system_on_chip_any_device_without_memory_shares_the_ram(nvidia: Tree) -> None:
    nvidia.write("sys/devices/soc0/family", "Tegra\n")
    hardware = await read(nvidia, Driver([Device("Orin (nvgpu)", None)]))
    assert [(gpu.name, gpu.unified, gpu.total_bytes) for gpu in hardware.gpus] == [
        ("Orin (nvgpu)", True, 64 * GIB)
    ]


async def test_a_device_with_memory_of_its_own_is_not_unified_whatever_its_name(nvidia: Tree) -> None:
    hardware = await read(nvidia, Driver([Device("Thorium", 8 * GIB, 8 * GIB)]))
    assert [(gpu.unified, gpu.total_bytes) for gpu in hardware.gpus] == [(False, 8 * GIB)]


async def test_a_lost_device_does_not_hide_the_others(nvidia: Tree) -> None:
    hardware = await read(nvidia, Driver([Device("gone", 1, lost=True), Device("fine", 2)]))
    assert [gpu.name for gpu in hardware.gpus] == ["fine"]
    assert hardware.warnings == ("nvidia device 0: GPU is lost",)


async def test_a_failing_driver_leaves_its_last_answer_and_is_asked_again(nvidia: Tree) -> None:
    driver = Driver([Device("NVIDIA L4", 24 * GIB, 20 * GIB)])
    probe = LocalHardware(nvidia.root, load_nvml=lambda: driver, machine_memory=lambda: MACHINE)
    known = (await probe.read()).gpus
    driver.failure = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    for _ in range(2):
        reading = await probe.read()
        assert reading.gpus == known
        assert reading.warnings == ("nvidia: RM has detected an NVML/RM version mismatch.",)
    driver.failure = None
    driver.devices[0].free = 0
    assert [gpu.free_bytes for gpu in (await probe.read()).gpus] == [0]
    assert driver.initialised == 1


async def test_a_driver_without_its_library_says_what_the_container_lacks(nvidia: Tree) -> None:
    hardware = await read(nvidia, Driver(failure=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    assert hardware.gpus == ()
    (warning,) = hardware.warnings
    assert "NVIDIA_DRIVER_CAPABILITIES" in warning


async def test_nvml_is_not_even_imported_where_there_is_no_driver(tree: Tree) -> None:
    def load() -> None:
        raise AssertionError("imported")

    hardware = await LocalHardware(tree.root, load_nvml=load).read()
    assert (hardware.gpus, hardware.warnings) == ((), ())


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("x86_64", "amd64"),
        ("AMD64", "amd64"),
        ("aarch64", "arm64"),
        ("arm64", "arm64"),
        ("riscv64", "riscv64"),
    ],
)
def test_architectures_have_gos_names(machine: str, name: str) -> None:
    assert go_architecture(machine) == name
