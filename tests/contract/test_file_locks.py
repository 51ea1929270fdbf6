"""Every `FileLocks` keeps these promises: the ones in memory and the real ones."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from localai_worker.adapters.filesystem.file_locks import LocalFileLocks
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.memory.file_locks import InMemoryFileLocks
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain.errors import FileUnwritable, PathEscapes
from localai_worker.domain.ports.file_locks import FileLocks
from localai_worker.domain.ports.filesystem import FileKind, FileSystem, RootedPath


@dataclass
class Stage:
    """Two who lock on one file system, and a way to make a symlink in it."""

    locks: FileLocks
    others: FileLocks
    filesystem: FileSystem
    root: Path
    link: Callable[[Path, Path], None]

    def place(self, name: str) -> RootedPath:
        return RootedPath(self.root, PurePosixPath(name))


@pytest.fixture(params=["memory", "local"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    if request.param == "memory":
        memory = InMemoryFileSystem()
        root = Path("/srv/models")
        memory.put(root / "there", b"")
        return Stage(InMemoryFileLocks(memory), InMemoryFileLocks(memory), memory, root, memory.link)
    root = tmp_path / "models"
    root.mkdir()
    (root / "there").touch()
    return Stage(
        LocalFileLocks(), LocalFileLocks(), LocalFileSystem(), root, lambda path, to: path.symlink_to(to)
    )


async def test_one_at_a_time_has_a_lock(stage: Stage) -> None:
    place = stage.place(".locks/a.lock")
    lock = await stage.locks.take(place)
    assert lock is not None
    assert await stage.others.take(place) is None
    assert await stage.locks.take(place) is None
    await lock.release()
    await lock.release()
    again = await stage.others.take(place)
    assert again is not None
    await lock.release()  # the first one's, which says nothing any more
    assert await stage.locks.take(place) is None
    await again.release()


async def test_the_file_of_a_lock_stays(stage: Stage) -> None:
    place = stage.place("deep/er/a.lock")
    lock = await stage.locks.take(place)
    assert lock is not None
    await lock.release()
    found = await stage.filesystem.stat(place.path)
    assert found is not None
    assert (found.kind, found.size_bytes) == (FileKind.FILE, 0)


async def test_locks_of_different_names_have_nothing_to_do_with_each_other(stage: Stage) -> None:
    one, other = await stage.locks.take(stage.place("a")), await stage.others.take(stage.place("b"))
    assert one is not None
    assert other is not None
    await one.release()
    await other.release()


async def test_a_lock_cannot_lie_outside(stage: Stage) -> None:
    stage.link(stage.root / "out", stage.root.parent / "elsewhere")
    with pytest.raises(PathEscapes):
        await stage.locks.take(stage.place("out/a.lock"))


@pytest.mark.parametrize("name", ["there/a.lock", "x" * 300])
async def test_a_file_that_cannot_be_made_is_told(stage: Stage, name: str) -> None:
    with pytest.raises(FileUnwritable):
        await stage.locks.take(stage.place(name))


HOLDER = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_killed_process_holds_nothing_any_more(tmp_path: Path) -> None:
    """M-5.3: flock, as upstream's workers on the same models directory take it."""
    place = RootedPath(tmp_path, PurePosixPath("a.lock"))
    holder = subprocess.Popen(
        [sys.executable, "-S", "-c", HOLDER, os.fspath(place.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert await LocalFileLocks().take(place) is None
    finally:
        holder.kill()
        holder.communicate(timeout=10)
    lock = await LocalFileLocks().take(place)
    assert lock is not None
    assert place.path.stat().st_mode & 0o777 == 0o600
    await lock.release()
