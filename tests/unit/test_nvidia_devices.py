"""NVIDIA's devices, from a driver played here whose errors are the library's own."""

import os
from pathlib import Path

import pynvml
import pytest

from localai_worker.adapters.hardware.local import LocalHardware
from localai_worker.domain.ports.hardware import Gpu
from tests.played_machine import GIB, Device, Driver, Tree


@pytest.fixture
def nvidia(tmp_path: Path) -> Tree:
    """A machine with NVIDIA's driver."""
    tree = Tree(tmp_path)
    tree.write("proc/driver/nvidia/version", "NVRM version\n")
    return tree


async def test_nvidia_devices_come_first_in_the_drivers_order(nvidia: Tree) -> None:
    nvidia.card("card0", "0x1002", mem_info_vram_total="7", mem_info_vram_used="3")
    driver = Driver([Device("NVIDIA H200", 141 * GIB, 140 * GIB), Device(b"NVIDIA L4", 24 * GIB, 0, (8, 9))])
    hardware = await nvidia.read(driver)
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
    hardware = await nvidia.read(Driver([Device(name, total, 0, None)]))
    memory = (64 * GIB, 48 * GIB) if unified else (None, None)
    (gpu,) = hardware.gpus
    assert (gpu.total_bytes, gpu.free_bytes, gpu.unified, gpu.compute_capability) == (*memory, unified, "")


async def test_on_a_system_on_chip_any_device_without_memory_shares_the_ram(nvidia: Tree) -> None:
    nvidia.write("sys/devices/soc0/family", "Tegra\n")
    hardware = await nvidia.read(Driver([Device("Orin (nvgpu)", None)]))
    assert [(gpu.name, gpu.unified, gpu.total_bytes) for gpu in hardware.gpus] == [
        ("Orin (nvgpu)", True, 64 * GIB)
    ]


async def test_a_device_with_memory_of_its_own_is_not_unified_whatever_its_name(nvidia: Tree) -> None:
    hardware = await nvidia.read(Driver([Device("Thorium", 8 * GIB, 8 * GIB)]))
    assert [(gpu.unified, gpu.total_bytes) for gpu in hardware.gpus] == [(False, 8 * GIB)]


async def test_a_lost_device_does_not_hide_the_others(nvidia: Tree) -> None:
    hardware = await nvidia.read(Driver([Device("gone", 1, lost=True), Device("fine", 2)]))
    assert [gpu.name for gpu in hardware.gpus] == ["fine"]
    assert hardware.warnings == ("nvidia device 0: GPU is lost",)


async def test_a_failing_driver_leaves_its_last_answer_and_is_asked_again(nvidia: Tree) -> None:
    driver = Driver([Device("NVIDIA L4", 24 * GIB, 20 * GIB)])
    probe = nvidia.probe(driver)
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
    hardware = await nvidia.read(Driver(failure=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    assert hardware.gpus == ()
    (warning,) = hardware.warnings
    assert "NVIDIA_DRIVER_CAPABILITIES" in warning


async def test_nvml_is_not_even_imported_where_there_is_no_driver(tmp_path: Path) -> None:
    def load() -> None:
        raise AssertionError("imported")

    hardware = await LocalHardware(tmp_path, load_nvml=load).read()
    assert (hardware.gpus, hardware.warnings) == ((), ())


L4 = [Device(f"NVIDIA L4 {n}", 24 * GIB, n * GIB, (8, 9), uuid=f"GPU-{n}{n}{n}{n}-aaaa") for n in range(3)]


@pytest.mark.parametrize(
    ("named", "left"),
    [
        ("0,2", [0, 2]),
        ("2,0", [2, 0]),
        ("1,1", [1]),
        ("GPU-2222, 0", [2, 0]),
        ("GPU-2222-aaaa", [2]),
        ("1,7,2", [1]),
        ("-1", []),
        ("NoDevFiles", []),
        ("", []),
    ],
)
async def test_only_the_devices_that_cuda_may_use_count(nvidia: Tree, named: str, left: list[int]) -> None:
    """H-23: CUDA_VISIBLE_DEVICES, with the rules that CUDA reads it by."""
    hardware = await nvidia.read(Driver(L4), CUDA_VISIBLE_DEVICES=named)
    assert [gpu.name for gpu in hardware.gpus] == [f"NVIDIA L4 {n}" for n in left]
    assert hardware.total_vram_bytes == 24 * GIB * len(left)
    assert hardware.warnings == ()


async def test_a_lost_device_keeps_its_position(nvidia: Tree) -> None:
    driver = Driver([Device("gone", 1, lost=True), Device("fine", 2)])
    hardware = await nvidia.read(driver, CUDA_VISIBLE_DEVICES="1")
    assert [gpu.name for gpu in hardware.gpus] == ["fine"]


def divided() -> Driver:
    parts = [
        Device("NVIDIA A100 MIG 3g.20gb", 20 * GIB, 19 * GIB, uuid="MIG-aaaa"),
        Device("NVIDIA A100 MIG 1g.5gb", 5 * GIB, 4 * GIB, uuid="MIG-bbbb"),
    ]
    whole = Device("NVIDIA A100", 40 * GIB, 23 * GIB, (8, 0), uuid="GPU-1", instances=parts)
    return Driver([whole, Device("NVIDIA L4", 24 * GIB, 20 * GIB, (8, 9), uuid="GPU-2")])


async def test_a_device_in_mig_mode_is_its_instances(nvidia: Tree) -> None:
    """H-23: a divided device offers what its instances have, and no more."""
    hardware = await nvidia.read(divided())
    assert [(gpu.name, gpu.compute_capability) for gpu in hardware.gpus] == [
        ("NVIDIA A100 MIG 3g.20gb", "8.0"),
        ("NVIDIA A100 MIG 1g.5gb", "8.0"),
        ("NVIDIA L4", "8.9"),
    ]
    assert (hardware.total_vram_bytes, hardware.free_vram_bytes) == (49 * GIB, 43 * GIB)


@pytest.mark.parametrize(
    ("named", "left"), [("MIG-bbbb", ["NVIDIA A100 MIG 1g.5gb"]), ("1", ["NVIDIA L4"]), ("MIG-cccc", [])]
)
async def test_an_instance_can_be_named(nvidia: Tree, named: str, left: list[str]) -> None:
    hardware = await nvidia.read(divided(), CUDA_VISIBLE_DEVICES=named)
    assert [gpu.name for gpu in hardware.gpus] == left


async def test_memory_in_use_is_told_by_process_group(nvidia: Tree) -> None:
    group = os.getpgid(0)
    driver = Driver(
        [
            Device("a", 9, processes={os.getpid(): 5, 2**22 + 1: 7}),
            Device("lost", 9, lost=True),
            Device("b", 9, processes={os.getpid(): 3}),
        ]
    )
    assert await nvidia.probe(driver).vram_by_group() == {group: 8}


async def test_without_a_driver_nothing_is_in_use(tmp_path: Path) -> None:
    assert await LocalHardware(tmp_path).vram_by_group() == {}
