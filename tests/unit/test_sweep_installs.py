"""What interrupted installs leave behind, and what becomes of it at the next start."""

import subprocess
import sys
from pathlib import Path

import pytest

from localai_worker.adapters.filesystem import trees
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain.sweep_installs import SweepInstalls

BACKENDS = Path("/srv/backends")


def memory(*paths: str) -> InMemoryFileSystem:
    filesystem = InMemoryFileSystem()
    for path in paths:
        filesystem.put(BACKENDS / path, b"")
    return filesystem


def names(filesystem: InMemoryFileSystem) -> list[str]:
    return [str(path.relative_to(BACKENDS)) for path in filesystem.files(BACKENDS)]


async def test_half_built_backends_go_and_all_else_stays() -> None:
    """G-W18: leftovers of a killed worker are swept at the start."""
    filesystem = memory(
        ".tool.1a2b.incoming/run.sh", "tool/run.sh", ".blobs/sha256/ab", ".hidden/x", "y.tmp/z"
    )
    await SweepInstalls(filesystem, BACKENDS).sweep()
    assert names(filesystem) == [".blobs/sha256/ab", ".hidden/x", "tool/run.sh", "y.tmp/z"]


@pytest.mark.parametrize("suffix", [".install-backup", ".backup"])
async def test_an_old_version_whose_successor_never_came_is_brought_back(suffix: str) -> None:
    """G-W18: upstream killed between two renames leaves no backend, and its next install no backup."""
    filesystem = memory(f"tool{suffix}/run.sh", f"other{suffix}/run.sh", "other/run.sh", f"odd{suffix}/x")
    await SweepInstalls(filesystem, BACKENDS).sweep()
    assert "tool/run.sh" in names(filesystem)
    assert f"other{suffix}/run.sh" in names(filesystem)  # its successor is there; upstream looks after it
    assert f"odd{suffix}/x" in names(filesystem)  # no backend


async def test_nothing_installed_yet_is_nothing_to_sweep() -> None:
    await SweepInstalls(InMemoryFileSystem(), BACKENDS).sweep()


async def test_what_cannot_be_swept_stops_no_start(caplog: pytest.LogCaptureFixture) -> None:
    filesystem = memory(".tool.1.incoming/run.sh")
    filesystem.chmod(BACKENDS, 0)
    await SweepInstalls(filesystem, BACKENDS).sweep()
    assert "leftovers of interrupted installs stay" in caplog.text


async def test_what_another_living_process_builds_stays(tmp_path: Path) -> None:
    """G-W18: two workers may share a backends directory."""
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from localai_worker.adapters.filesystem.local import LocalFileSystem\n"
        "fs = LocalFileSystem()\n"
        "print(asyncio.run(fs.private_directory(Path(sys.argv[1]))), flush=True)\n"
        "sys.stdin.read()"
    )
    builder = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "tool"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with builder:
        assert builder.stdout is not None
        private = Path(builder.stdout.readline().strip())
        assert await LocalFileSystem().sweep_private(tmp_path) == ()
        builder.kill()
        builder.wait()
    assert await LocalFileSystem().sweep_private(tmp_path) == (private,)
    assert not private.exists()


async def test_without_an_exchange_of_names_the_old_tree_is_put_back_by_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the two renames of a file system that cannot exchange names."""
    monkeypatch.setattr(trees, "_exchange", lambda *_: False)
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool/run.sh").write_text("old")

    class Killed(BaseException):
        pass

    renamed: list[Path] = []
    rename = Path.rename

    def killed_at_the_second(self: Path, target: Path) -> Path:
        renamed.append(self)
        if len(renamed) == 2:
            raise Killed
        return rename(self, target)

    filesystem = LocalFileSystem()
    private = await filesystem.private_directory(tmp_path / "tool")
    monkeypatch.setattr(Path, "rename", killed_at_the_second)
    with pytest.raises(Killed):
        trees.replace_directory(private, tmp_path / "tool")
    monkeypatch.setattr(Path, "rename", rename)
    assert not (tmp_path / "tool").exists()
    await LocalFileSystem().sweep_private(tmp_path)
    assert (tmp_path / "tool/run.sh").read_text() == "old"


@pytest.mark.parametrize("can_exchange", [True, False])
async def test_a_swap_works_either_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(trees, "_exchange", lambda *_: False)
    filesystem = LocalFileSystem()
    for content in ("one", "two"):
        private = await filesystem.private_directory(tmp_path / "tool")
        (private / "run.sh").write_text(content)
        await filesystem.replace_directory(private, tmp_path / "tool")
        assert (tmp_path / "tool/run.sh").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["tool"]
