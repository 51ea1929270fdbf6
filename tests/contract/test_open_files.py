"""Every `OpenFiles` keeps this promise: the in-memory one and the machine's own."""

import mmap
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localai_worker.adapters.memory.open_files import InMemoryOpenFiles
from localai_worker.adapters.processes.open_files import LocalOpenFiles
from localai_worker.domain.ports.open_files import OpenFiles

Use = Callable[[Path], None]


@pytest.fixture(params=["memory", "open", "mapped"])
def case(request: pytest.FixtureRequest) -> Iterator[tuple[OpenFiles, Use]]:
    """The port and a way to use a file."""
    if request.param == "memory":
        memory = InMemoryOpenFiles()
        yield memory, memory.opened.add
        return
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells")
    held: list[object] = []

    def use(path: Path) -> None:
        file = path.open("rb")
        if request.param == "mapped":
            held.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            file.close()
        else:
            held.append(file)

    yield LocalOpenFiles(), use
    for each in held:
        each.close()  # type: ignore[attr-defined]


async def test_files_that_are_open_or_mapped_are_told_from_others(
    case: tuple[OpenFiles, Use], tmp_path: Path
) -> None:
    port, use = case
    used, idle, absent = tmp_path / "used", tmp_path / "idle", tmp_path / "absent"
    used.write_bytes(b"weights")
    idle.write_bytes(b"weights")
    use(used)
    assert await port.among(frozenset({used, idle, absent})) == {used}
    assert await port.among(frozenset()) == frozenset()
