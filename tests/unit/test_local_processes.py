"""What only real processes can show: environment, modes, descriptors, reaping."""

import os
import subprocess
from pathlib import Path

import anyio
import pytest

from localai_worker.adapters.processes.local import LocalProcesses
from localai_worker.domain.errors import SpawnFailed
from localai_worker.domain.ports.processes import ProcessExit, ProcessSpec, StopSignal


def _spec(home: Path, script: str, **environment: str) -> ProcessSpec:
    home.mkdir(parents=True, exist_ok=True)
    (home / "run.sh").write_text(f"#!/bin/sh\n{script}\n")
    return ProcessSpec(
        home / "run.sh",
        ("--addr", "0.0.0.0:1"),
        {"PATH": os.environ["PATH"], **environment},
        home / "logs" / "out",
        home / "logs" / "err",
    )


async def _run(spec: ProcessSpec) -> ProcessExit:
    process = await LocalProcesses().spawn(spec)
    with anyio.fail_after(10):
        return await process.wait()


@pytest.mark.parametrize(
    ("mode", "afterwards"), [(0o644, 0o755), (0o640, 0o750), (0o600, 0o700), (0o710, 0o710)]
)
async def test_a_program_without_execute_bit_is_made_executable_for_its_readers(
    tmp_path: Path, mode: int, afterwards: int
) -> None:
    """G-W29."""
    spec = _spec(tmp_path, "exit 0")
    spec.program.chmod(mode)
    assert await _run(spec) == ProcessExit(code=0)
    assert spec.program.stat().st_mode & 0o777 == afterwards


async def test_the_child_gets_its_own_directory_arguments_environment_and_null_stdin(tmp_path: Path) -> None:
    spec = _spec(tmp_path / "a b", 'pwd; echo "$0 $*"; env | grep -c LOCALAI; echo "$X"; cat', X="1")
    assert (await _run(spec)).code == 0
    lines = spec.stdout.read_text().splitlines()
    assert lines[0] == str(tmp_path / "a b")
    assert lines[1].endswith("run.sh --addr 0.0.0.0:1")
    assert lines[2:] == ["0", "1"]
    assert spec.stdout.stat().st_mode & 0o777 == 0o640


async def test_no_descriptor_of_the_worker_leaks_into_the_child(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        spec = _spec(tmp_path / "b", "ls /proc/self/fd | wc -l")
        await _run(spec)
    assert int(spec.stdout.read_text()) <= 4  # three standard ones and the one ls reads the folder with


async def test_other_children_keep_their_exit_status(tmp_path: Path) -> None:
    """G-W10, N-B9: only our own pid is ever waited for."""
    helper = subprocess.Popen(["sh", "-c", "exit 7"])
    for _ in range(3):
        assert await _run(_spec(tmp_path, "exit 3")) == ProcessExit(code=3)
    assert helper.wait(timeout=10) == 7


async def test_a_directory_in_place_of_the_program_is_refused(tmp_path: Path) -> None:
    spec = _spec(tmp_path, "exit 0")
    spec.program.unlink()
    spec.program.mkdir()
    with pytest.raises(SpawnFailed, match="not a regular file"):
        await LocalProcesses().spawn(spec)


async def test_no_zombie_is_left(tmp_path: Path) -> None:
    process = await LocalProcesses().spawn(_spec(tmp_path, "exec sleep 60"))
    process.signal_group(StopSignal.KILL)
    with anyio.fail_after(5):
        await process.wait()
    assert not Path(f"/proc/{process.pid}").exists()
