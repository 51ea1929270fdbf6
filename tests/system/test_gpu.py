"""A real NVIDIA GPU, seen by us and by nvidia-smi."""

import shutil
import subprocess

import pytest

from localai_worker.adapters.hardware.local import LocalHardware

MIB = 1024 * 1024


def query_nvidia_smi(columns: str) -> list[list[str]]:
    """The rows nvidia-smi prints; skips the test on a machine without NVIDIA GPUs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        pytest.skip("no NVIDIA GPU: nvidia-smi is not installed")
    done = subprocess.run(
        [program, f"--query-gpu={columns}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode != 0:
        pytest.skip(f"no NVIDIA GPU: {(done.stdout or done.stderr).strip()}")
    return [line.split(", ") for line in done.stdout.splitlines()]


async def test_we_see_the_devices_that_nvidia_smi_sees() -> None:
    rows = query_nvidia_smi("memory.total,compute_cap,name")
    hardware = await LocalHardware().read()
    assert hardware.warnings == ()
    assert hardware.vendor == "nvidia"
    devices = [gpu for gpu in hardware.gpus if gpu.vendor == "nvidia"]
    assert [(gpu.compute_capability, gpu.name) for gpu in devices] == [(row[1], row[2]) for row in rows]
    for gpu, (total_mib, *_) in zip(devices, rows, strict=True):
        if total_mib == "[N/A]":
            assert gpu.unified
            continue
        assert gpu.total_bytes is not None
        assert abs(gpu.total_bytes / MIB - int(total_mib)) <= 1
        assert gpu.free_bytes is not None
        assert 0 <= gpu.free_bytes <= gpu.total_bytes
