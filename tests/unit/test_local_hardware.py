"""Reading a node's hardware from trees that look like /sys and /proc, and from a driver played here."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localai_worker.adapters.hardware.local import LocalHardware, go_architecture
from localai_worker.domain.ports.hardware import Gpu, Memory
from tests.played_machine import GIB, MACHINE, Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


async def test_a_bare_machine_has_ram_and_nothing_else(tree: Tree) -> None:
    hardware = await tree.read()
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
    hardware = await tree.read()
    assert hardware.gpus == (
        Gpu(vendor="amd", name="Instinct", total_bytes=1000, free_bytes=0),
        Gpu(vendor="amd", name="amd 0x744c", total_bytes=24 * GIB, free_bytes=23 * GIB),
    )
    assert hardware.warnings == ()


async def test_amd_comes_before_intel_and_other_cards_do_not_count(tree: Tree) -> None:
    """G-1.5.9, G-1.5.10, H-c2704dba5: vendors go by PCI id; no integrated device hides the other one."""
    tree.card("card0", "0x8086", device="0x46a6")
    tree.card("card1", "0x1002", mem_info_vram_total="7", mem_info_vram_used="3")
    tree.card("card2", "0x1a03")
    hardware = await tree.read()
    assert [(gpu.vendor, gpu.total_bytes) for gpu in hardware.gpus] == [("amd", 7), ("intel", None)]
    assert hardware.vendor == "amd"


async def test_memory_that_is_not_told_stays_unknown(tree: Tree) -> None:
    """H-551ebdb57: what is unknown is left out, not zero."""
    tree.card("card0", "0x1002", mem_info_vram_total="7")
    tree.card("card1", "0x8086")
    hardware = await tree.read()
    assert [(gpu.total_bytes, gpu.free_bytes) for gpu in hardware.gpus] == [(7, None), (None, None)]
    assert hardware.free_vram_bytes is None


async def test_nonsense_in_sysfs_is_a_warning(tree: Tree) -> None:
    tree.card("card0", "0x1002", mem_info_vram_total="lots", mem_info_vram_used="3")
    hardware = await tree.read()
    assert hardware.gpus == ()
    assert len(hardware.warnings) == 1
    assert hardware.warnings[0].startswith("amd: ")
    assert hardware.ram == MACHINE


async def test_cuda_directories_are_found(tree: Tree) -> None:
    """G-1.5.11."""
    (tree.root / "usr/local/cuda-12").mkdir(parents=True)
    (tree.root / "usr/local/cuda-11").mkdir()
    assert (await tree.read()).cuda_directories == {12}
    (tree.root / "usr/local/cuda-13").mkdir()
    assert (await tree.read()).cuda_directories == {12, 13}


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
    """G-1.5.10."""
    for file, text in files.items():
        tree.write(f"sys/devices/soc0/{file}", text)
    hardware = await tree.read()
    assert hardware.gpus == (
        Gpu(vendor="nvidia", name=name, total_bytes=64 * GIB, free_bytes=48 * GIB, unified=True),
    )


async def test_a_jetson_is_named_by_its_device_tree(tree: Tree) -> None:
    tree.write("sys/devices/soc0/family", "Tegra\n")
    tree.write("proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    assert [gpu.name for gpu in (await tree.read()).gpus] == ["NVIDIA Jetson AGX Orin Developer Kit"]


async def test_another_system_on_chip_is_no_gpu(tree: Tree) -> None:
    tree.write("sys/devices/soc0/family", "Snapdragon\n")
    tree.write("sys/devices/soc0/soc_id", "jep106:0070:0001\n")
    assert (await tree.read()).gpus == ()


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
    assert (await tree.read()).ram == Memory(8 * GIB, 6 * GIB)


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
    assert (await tree.read()).ram == MACHINE


async def test_the_tightest_group_on_the_way_up_counts(tree: Tree) -> None:
    tree.write("proc/self/cgroup", "4:cpu,memory:/v1\n0::/system.slice/worker.service\n")
    tree.write("sys/fs/cgroup/system.slice/memory.max", f"{16 * GIB}\n")
    tree.write("sys/fs/cgroup/system.slice/memory.current", f"{15 * GIB}\n")
    tree.write("sys/fs/cgroup/system.slice/worker.service/memory.max", f"{32 * GIB}\n")
    assert (await tree.read()).ram == Memory(16 * GIB, GIB)
    tree.write("sys/fs/cgroup/memory/v1/memory.limit_in_bytes", f"{2 * GIB}\n")
    assert (await tree.read()).ram == Memory(2 * GIB, GIB)


@pytest.mark.parametrize("path", ["/../outside", "/docker/0123", "/"])
async def test_a_group_that_only_the_host_knows_is_looked_for_at_the_root(tree: Tree, path: str) -> None:
    tree.write("proc/self/cgroup", f"0::{path}\n")
    tree.write("sys/fs/cgroup/memory.max", f"{8 * GIB}\n")
    tree.write("sys/fs/outside/memory.max", "1\n")
    assert (await tree.read()).ram == Memory(8 * GIB, 8 * GIB)


async def test_a_group_beyond_its_limit_has_nothing_left(tree: Tree) -> None:
    tree.write("sys/fs/cgroup/memory.max", "1000\n")
    tree.write("sys/fs/cgroup/memory.current", "2000\n")
    assert (await tree.read()).ram == Memory(1000, 0)


async def test_ram_that_cannot_be_read_is_a_warning(tree: Tree) -> None:
    tree.write("sys/fs/cgroup/memory.max", f"{8 * GIB}\n")
    tree.write("sys/fs/cgroup/memory.current", "?\n")
    hardware = await tree.read()
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
        assert "amd: no answer within 0.05 s" in reading.warnings

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
    assert "amd: no answer within 0.05 s" in hardware.warnings


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
