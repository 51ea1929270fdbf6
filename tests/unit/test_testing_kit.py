"""The library for users' own tests: its example runs as it is printed, and pytest finds its fixtures."""

import subprocess
import sys
from pathlib import Path

from localai_worker.app.testing import MemoryNode

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "testing"

PLAIN_TEST = """
import pytest

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_bus(localai_bus, localai_broker, anyio_backend):
    localai_broker.offline = True
    assert not localai_bus.connected

def test_nothing_is_loaded_before_it_is_used():
    import sys
    assert "dependency_injector" not in sys.modules
"""


def run_pytest(*arguments: str, cwd: Path) -> str:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        *arguments,
    ]
    outcome = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=100)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    assert "6 passed" in run_pytest("-c", "/dev/null", "--rootdir", str(tmp_path), str(EXAMPLE), cwd=tmp_path)


def test_the_fixtures_are_there_without_an_import(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(PLAIN_TEST)
    unused_first = ("test_plain.py::test_nothing_is_loaded_before_it_is_used", "test_plain.py::test_bus")
    assert "2 passed" in run_pytest("--rootdir", str(tmp_path), *unused_first, cwd=tmp_path)


async def test_the_node_is_up(localai_node: MemoryNode) -> None:
    assert localai_node.worker.enrolment.registered is not None
    assert localai_node.registry.named("node-1") is not None
