"""AMD, Intel, Vulkan and Apple devices: trees that look like /sys and /proc, and tools that print recordings.

Which of the recordings are recorded and which composed is said in tests/hardware/README.md.
"""

import os
from pathlib import Path

import pytest

from localai_worker.adapters.hardware.local import LocalHardware
from localai_worker.domain.capability import detect
from localai_worker.domain.ports.hardware import Gpu
from tests.played_machine import GIB, MACHINE, MIB, RECORDINGS, Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def pci_card(tree: Tree, number: int, address: str, vendor: str) -> None:
    """A card whose `device` is a link to its place on the PCI bus, as in a real /sys."""
    place = tree.root / "sys/devices/pci0000:00" / address
    place.mkdir(parents=True)
    (place / "vendor").write_text(f"{vendor}\n")
    (place / "device").write_text("0x56a0\n")
    card = tree.root / f"sys/class/drm/card{number}"
    card.mkdir(parents=True)
    (card / "device").symlink_to(place)


async def test_rocm_smi_tells_what_the_driver_does_not(tree: Tree) -> None:
    tree.card("card0", "0x1002", product_name="Radeon RX 7900 XTX")
    tree.card("card1", "0x1002", mem_info_vram_total="7", mem_info_vram_used="3", product_name="known")
    tree.prints("rocm-smi", "rocm-smi-vram.csv")
    hardware = await tree.read()
    assert hardware.gpus == (
        Gpu(
            vendor="amd",
            name="Radeon RX 7900 XTX",
            total_bytes=25753026560,
            free_bytes=25753026560 - 26800128,
        ),
        Gpu(vendor="amd", name="known", total_bytes=7, free_bytes=4),
    )
    assert hardware.warnings == ()


async def test_rocm_smi_finds_devices_that_sysfs_does_not_show_and_small_figures_are_mib(tree: Tree) -> None:
    tree.prints("rocm-smi", "rocm-smi-vram-mib.csv")
    hardware = await tree.read()
    assert [(gpu.vendor, gpu.total_bytes, gpu.free_bytes) for gpu in hardware.gpus] == [
        ("amd", 16368 * MIB, 15344 * MIB)
    ]
    assert detect(hardware, None, None) == "amd"


@pytest.mark.parametrize(
    ("variables", "left"),
    [
        ({"ROCR_VISIBLE_DEVICES": "1"}, ["one"]),
        ({"HIP_VISIBLE_DEVICES": "0"}, ["zero"]),
        ({"ROCR_VISIBLE_DEVICES": "2,1", "HIP_VISIBLE_DEVICES": "0"}, ["two"]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-00ab"}, ["one"]),
        ({"HIP_VISIBLE_DEVICES": "-1"}, []),
    ],
)
async def test_only_the_devices_that_rocm_may_use_count(
    tree: Tree, variables: dict[str, str], left: list[str]
) -> None:
    """H-23: ROCR_VISIBLE_DEVICES, and HIP_VISIBLE_DEVICES among what that one leaves."""
    for number, (name, serial) in enumerate([("zero", "00aa"), ("one", "00ab"), ("two", "00ac")]):
        figures = {"mem_info_vram_total": "7", "mem_info_vram_used": "3"}
        tree.card(f"card{number}", "0x1002", product_name=name, unique_id=serial, **figures)
    assert [gpu.name for gpu in (await tree.read(**variables)).gpus] == left


async def test_xpu_smi_tells_an_intel_devices_memory(tree: Tree) -> None:
    pci_card(tree, 0, "0000:4d:00.0", "0x8086")
    discovery, stats = RECORDINGS / "xpu-smi-discovery.json", RECORDINGS / "xpu-smi-stats.json"
    tree.program(
        "xpu-smi", f"[ $1 = discovery ] && exec cat '{discovery}'; [ \"$3\" = 0 ] && exec cat '{stats}'"
    )
    hardware = await tree.read()
    assert hardware.gpus == (
        Gpu(
            vendor="intel",
            name="Intel(R) Data Center GPU Flex 170",
            total_bytes=14753644544,
            free_bytes=14753644544 - int(1024.5 * MIB),
        ),
    )
    assert hardware.warnings == ()


def drm_client(
    tree: Tree, pid: int, descriptor: int, client: int, target: str = "/dev/dri/renderD128", **held: int
) -> None:
    process = tree.root / f"proc/{pid}"
    (process / "fd").mkdir(parents=True, exist_ok=True)
    (process / "fd" / str(descriptor)).symlink_to(target)
    lines = [f"drm-pdev:\t0000:03:00.0\ndrm-client-id:\t{client}\n"]
    lines += [f"drm-{name.replace('_', '-')}:\t{kib} KiB\n" for name, kib in held.items()]
    tree.write(f"proc/{pid}/fdinfo/{descriptor}", "".join(lines))


async def test_without_it_opencl_tells_the_size_and_the_kernel_what_is_used(tree: Tree) -> None:
    """H-90ea32717: an Arc card has its memory; the device inside the CPU has none of its own."""
    pci_card(tree, 0, "0000:00:02.0", "0x8086")
    pci_card(tree, 1, "0000:03:00.0", "0x8086")
    tree.prints("clinfo", "clinfo-arc.json")
    drm_client(tree, 10, 3, client=7, total_local0=2048, total_stolen_local0=9, resident_local0=1024)
    drm_client(tree, 10, 4, client=7, total_local0=2048)  # the same client by another descriptor
    drm_client(tree, 11, 3, client=8, total_vram0=1024, total_system=4096)
    drm_client(tree, 12, 3, client=9, target="/dev/dri/card1", total_vram0=512)
    hardware = await tree.read()
    assert [(gpu.total_bytes, gpu.free_bytes) for gpu in hardware.gpus] == [
        (None, None),
        (16225243136, 16225243136 - 3 * MIB),
    ]
    assert detect(hardware, None, None) == "intel"


async def test_opencl_without_a_gpu_changes_nothing(tree: Tree) -> None:
    pci_card(tree, 0, "0000:00:02.0", "0x8086")
    tree.prints("clinfo", "clinfo-pocl.json")
    hardware = await tree.read()
    assert [(gpu.vendor, gpu.total_bytes) for gpu in hardware.gpus] == [("intel", None)]
    assert hardware.warnings == ()


async def test_opencl_is_asked_once(tree: Tree) -> None:
    pci_card(tree, 1, "0000:03:00.0", "0x8086")
    count = tree.root / "asked"
    tree.program("clinfo", f"echo x >> '{count}'; exec cat '{RECORDINGS / 'clinfo-arc.json'}'")
    probe = tree.probe()
    for _ in range(3):
        assert [gpu.total_bytes for gpu in (await probe.read()).gpus] == [16225243136]
    assert count.read_text() == "x\n"


async def test_vulkan_shows_what_no_vendors_tool_knows(tree: Tree) -> None:
    """H-03815e3b5: the heaps of the device itself, with what the budget leaves; no software renderer."""
    tree.prints("vulkaninfo", "vulkaninfo-two-devices.txt")
    hardware = await tree.read()
    assert hardware.gpus == (
        Gpu(vendor="vulkan", name="Moore Threads MTT S80", total_bytes=17163091968, free_bytes=15 * GIB),
    )
    assert detect(hardware, None, None) == "vulkan"


async def test_a_software_renderer_is_no_gpu(tree: Tree) -> None:
    tree.prints("vulkaninfo", "vulkaninfo-llvmpipe.txt")
    hardware = await tree.read()
    assert (hardware.gpus, hardware.warnings) == ((), ())
    assert detect(hardware, None, None) == "default"


@pytest.mark.parametrize(
    ("tool", "recording"), [("vulkaninfo", "vulkaninfo-llvmpipe.txt"), ("rocm-smi", "rocm-smi-none.csv")]
)
async def test_a_tool_that_finds_nothing_is_run_once(tree: Tree, tool: str, recording: str) -> None:
    count = tree.root / "asked"
    tree.program(tool, f"echo x >> '{count}'; exec cat '{RECORDINGS / recording}'")
    probe = tree.probe()
    for _ in range(3):
        assert (await probe.read()).gpus == ()
    assert count.read_text() == "x\n"


async def test_vulkan_is_not_asked_where_there_is_another_device(tree: Tree) -> None:
    tree.card("card0", "0x1002", mem_info_vram_total="7", mem_info_vram_used="3")
    tree.program("vulkaninfo", "exit 1")
    hardware = await tree.read()
    assert [gpu.vendor for gpu in hardware.gpus] == ["amd"]
    assert hardware.warnings == ()


async def test_apples_gpu_has_the_ram_as_its_memory(tree: Tree) -> None:
    tree.prints("system_profiler", "system-profiler-m3.json")
    probe = LocalHardware(
        tree.root, {"PATH": f"{tree.root}/usr/bin:/bin"}, machine_memory=lambda: MACHINE, system="darwin"
    )
    assert (await probe.read()).gpus == (
        Gpu(vendor="apple", name="Apple M3 Max", total_bytes=64 * GIB, free_bytes=48 * GIB, unified=True),
    )


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 3", "rocm-smi: exit code 3"),
        ("printf 'card0,1,lots'", "invalid literal"),
        ("head -c 5000000 /dev/zero", "bytes of output"),
    ],
)
async def test_a_tool_that_fails_is_a_warning_and_the_device_stays(
    tree: Tree, script: str, says: str
) -> None:
    tree.card("card0", "0x1002")
    tree.program("rocm-smi", script)
    hardware = await tree.read()
    assert [(gpu.vendor, gpu.total_bytes) for gpu in hardware.gpus] == [("amd", None)]
    (warning,) = hardware.warnings
    assert warning.startswith("amd: ")
    assert says in warning


@pytest.mark.parametrize("text", ["[]", "{", '{"device_list": [{}]}', '{"device_list": 7}'])
async def test_nonsense_of_xpu_smi_is_a_warning_and_the_device_stays(tree: Tree, text: str) -> None:
    pci_card(tree, 0, "0000:4d:00.0", "0x8086")
    tree.program("xpu-smi", f"echo '{text}'")
    hardware = await tree.read()
    assert [(gpu.vendor, gpu.total_bytes) for gpu in hardware.gpus] == [("intel", None)]
    (warning,) = hardware.warnings
    assert warning.startswith("intel: ")


async def test_a_tool_that_hangs_is_ended_with_what_it_started(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H-22: a hung tool holds up nothing and is not left behind."""
    monkeypatch.setattr("localai_worker.adapters.hardware.amd._TOOL_S", 0.2)
    tree.card("card0", "0x1002")
    pids = tree.root / "pids"
    tree.program("rocm-smi", f"sleep 600 & echo $! $$ > '{pids}'; wait")
    hardware = await tree.read()
    assert hardware.warnings == ("amd: rocm-smi: no answer within 0.2 s",)
    for pid in pids.read_text().split():
        assert not running(int(pid))


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_a_tool_gets_no_secrets(tree: Tree) -> None:
    tree.card("card0", "0x1002")
    seen = tree.root / "seen"
    tree.program("rocm-smi", f"env > '{seen}'")
    await tree.read(LOCALAI_REGISTRATION_TOKEN="secret")
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert "PATH" in names
    assert "LOCALAI_REGISTRATION_TOKEN" not in names


async def test_memory_of_other_vendors_is_told_by_process_group_too(tree: Tree) -> None:
    drm_client(tree, os.getpid(), 3, client=7, total_vram0=2048)
    drm_client(tree, 2**22 + 1, 3, client=8, total_vram0=1024)  # no such process any more
    assert await tree.probe().vram_by_group() == {os.getpgid(0): 2 * MIB}
