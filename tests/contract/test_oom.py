"""The promises of the `OomKills` port: a machine in memory, the kernel's files, and a real kill."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localai_worker.adapters.hardware.oom import KernelOomKills
from localai_worker.adapters.memory.machine import InMemoryMachine
from localai_worker.adapters.memory.oom import InMemoryOomKills
from localai_worker.domain.ports.oom import OomKills

Kill = Callable[[], None]
Stage = tuple[OomKills, Kill]


def _file(root: Path, place: str, content: str) -> Path:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def _files(root: Path, place: str, form: str, cgroup: str) -> Stage:
    _file(root, "proc/self/cgroup", cgroup)
    _file(root, "proc/vmstat", "nr_free_pages 1\noom_kill 900\n")
    count = 3

    def kill() -> None:
        nonlocal count
        count += 1
        _file(root, place, form.format(count))

    kill()
    return KernelOomKills(root), kill


@pytest.fixture(params=["memory", "version 2", "version 1", "container", "machine"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    match request.param:
        case "memory":
            machine = InMemoryMachine(oom_kills=4)

            def kill() -> None:
                machine.oom_kills = (machine.oom_kills or 0) + 1

            return InMemoryOomKills(machine), kill
        case "version 2":
            place = "sys/fs/cgroup/system.slice/worker.service/memory.events"
            form = "low 0\nhigh 0\nmax 12\noom 1\noom_kill {}\noom_group_kill 0\n"
            return _files(tmp_path, place, form, "0::/system.slice/worker.service\n")
        case "version 1":
            place = "sys/fs/cgroup/memory/docker/x/memory.oom_control"
            form = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
            return _files(tmp_path, place, form, "4:memory:/docker/x\n1:cpu:/docker/x\n")
        case "container":  # sees its own group as the root
            return _files(tmp_path, "sys/fs/cgroup/memory.events", "oom_kill {}\n", "0::/../../outside\n")
        case _:
            return _files(tmp_path, "proc/vmstat", "nr_free_pages 1\noom_kill {}\n", "0::/\n")


def test_every_kill_counts(stage: Stage) -> None:
    kills, kill = stage
    before = kills.count()
    assert before == 4
    kill()
    assert kills.count() == 5


def test_where_nobody_tells_there_is_no_count(tmp_path: Path) -> None:
    assert KernelOomKills(tmp_path).count() is None
    _file(tmp_path, "proc/vmstat", "nr_free_pages 1\n")
    assert KernelOomKills(tmp_path).count() is None
    assert InMemoryOomKills(InMemoryMachine(oom_kills=None)).count() is None


_MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
_HOG = "data = []\nwhile True: data.append(bytearray(1 << 20))"
_COUNTS = f"""
import os, subprocess, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
from localai_worker.adapters.hardware.oom import KernelOomKills
before = KernelOomKills().count()
code = subprocess.run([sys.executable, "-c", {_HOG!r}]).returncode
print(code, KernelOomKills().count() - before)
"""


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of 128 MiB; skips where none can be made."""
    group = _MEMORY_GROUPS / "localai-worker-test"
    try:
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(128 << 20))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    group.rmdir()


def test_a_real_kill_for_memory_is_counted(small_group: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _COUNTS, str(small_group)], capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.split() == ["-9", "1"], ran
