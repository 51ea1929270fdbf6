"""What every `HardwareProbe` promises, held against a made-up node and this machine."""

import anyio
import pytest

from localai_worker.adapters.hardware.local import LocalHardware
from localai_worker.adapters.memory.hardware import InMemoryHardware
from localai_worker.domain.ports.hardware import Gpu, Hardware, HardwareProbe, Memory

GIB = 1024**3
NODE = Hardware(
    gpus=(
        Gpu(vendor="intel", name="iGPU", total_bytes=None, free_bytes=None),
        Gpu(vendor="nvidia", name="small", total_bytes=8 * GIB, free_bytes=7 * GIB, compute_capability="8.9"),
        Gpu(vendor="nvidia", name="large", total_bytes=80 * GIB, free_bytes=None, compute_capability="10.0"),
    ),
    ram=Memory(64 * GIB, 60 * GIB),
    architecture="amd64",
    system="linux",
    cuda_directories=frozenset({12}),
)


@pytest.fixture(params=["memory", "local"])
def probe(request: pytest.FixtureRequest) -> HardwareProbe:
    return InMemoryHardware(NODE) if request.param == "memory" else LocalHardware()


async def test_a_reading_is_bounded_and_complete(probe: HardwareProbe) -> None:
    with anyio.fail_after(10):
        hardware = await probe.read()
    assert hardware.architecture in {"amd64", "arm64"}
    assert hardware.system == "linux"
    assert hardware.cuda_directories <= {12, 13}


async def test_there_is_ram_and_never_more_available_than_in_all(probe: HardwareProbe) -> None:
    """H-034df6ceb: RAM is reported on every node, with or without GPUs."""
    ram = (await probe.read()).ram
    assert ram is not None
    assert 0 < ram.available_bytes <= ram.total_bytes


async def test_every_device_has_a_name_a_known_vendor_and_no_more_free_than_in_all(
    probe: HardwareProbe,
) -> None:
    for gpu in (await probe.read()).gpus:
        assert gpu.name
        assert gpu.vendor in {"nvidia", "amd", "intel", "apple", "vulkan"}
        assert gpu.free_bytes is None or gpu.total_bytes is None or 0 <= gpu.free_bytes <= gpu.total_bytes
        assert gpu.compute_capability == "" or gpu.vendor == "nvidia"


async def test_two_readings_show_the_same_devices(probe: HardwareProbe) -> None:
    first, second = await probe.read(), await probe.read()
    assert [gpu.name for gpu in first.gpus] == [gpu.name for gpu in second.gpus]
    assert first.ram is not None
    assert second.ram is not None
    assert first.ram.total_bytes == second.ram.total_bytes


async def test_memory_in_use_is_told_for_groups_that_use_some(probe: HardwareProbe) -> None:
    if isinstance(probe, InMemoryHardware):
        probe.vram = {7: 5 * GIB, 8: 0}
    with anyio.fail_after(10):
        used = await probe.vram_by_group()
    assert all(group > 0 and used_bytes > 0 for group, used_bytes in used.items())
    if isinstance(probe, InMemoryHardware):
        assert used == {7: 5 * GIB}


async def test_warnings_are_single_lines(probe: HardwareProbe) -> None:
    assert all(len(warning.splitlines()) == 1 for warning in (await probe.read()).warnings)


async def test_a_made_up_node_can_be_changed() -> None:
    node = InMemoryHardware()
    assert (await node.read()).vendor == ""
    node.reading = NODE
    hardware = await node.read()
    assert (hardware.vendor, hardware.total_vram_bytes, hardware.free_vram_bytes) == (
        "nvidia",
        88 * GIB,
        7 * GIB,
    )
    assert hardware.compute_capability == "10.0"
