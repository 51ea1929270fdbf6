"""Backends copied from a local directory."""

import os
import socket
import stat
import subprocess
from pathlib import Path

import anyio
import pytest

from localai_worker.adapters.artifacts.local_directory import LocalDirectories
from localai_worker.adapters.artifacts.tree_limits import TreeLimits
from localai_worker.domain.errors import ArtifactInvalid, ArtifactUnavailable


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "lib/empty").mkdir(parents=True)
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o4750)
    (source / "lib/data").write_bytes(os.urandom(3_000_000))
    (source / "lib/link").symlink_to("data")
    (source / "lib/outside").symlink_to("/etc/passwd")
    (source / "lib/dangling").symlink_to("nowhere")
    (source / "lib/to-directory").symlink_to("empty")
    os.utime(source / "lib/empty", (1_000_000_000, 1_000_000_000))
    return source


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


async def test_a_tree_is_copied_with_links_as_links_modes_and_times(source: Path, into: Path) -> None:
    fetched = await LocalDirectories().fetch(str(source), into)
    compared = subprocess.run(
        ["diff", "-r", "--no-dereference", source, into], capture_output=True, check=False
    )
    assert (compared.returncode, compared.stdout) == (0, b"")
    assert fetched.size_bytes == 3_000_010
    assert fetched.digest == ""
    assert stat.S_IMODE((into / "run.sh").stat().st_mode) == 0o750  # less the setuid bit
    assert (into / "lib/empty").stat().st_mtime == 1_000_000_000


async def test_the_directory_may_be_named_by_a_link(source: Path, into: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("source")
    await LocalDirectories().fetch(f"{tmp_path}/link/", into)
    assert (into / "run.sh").exists()


@pytest.mark.parametrize("kind", ["pipe", "socket"])
async def test_what_is_no_file_is_refused_by_name(source: Path, into: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(source / "lib/odd")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(source / "lib/odd"))
    with pytest.raises(ArtifactInvalid, match="'lib/odd' is a device, pipe or socket"):
        await LocalDirectories().fetch(str(source), into)


@pytest.mark.parametrize("inside", [".", "lib", "lib/empty"])
async def test_a_directory_is_not_copied_into_itself(source: Path, inside: str) -> None:
    with pytest.raises(ArtifactInvalid, match="contains"):
        await LocalDirectories().fetch(str(source), source / inside)


@pytest.mark.parametrize("name", ["source/run.sh", "nowhere", "circle", "bad\0name"])
async def test_what_is_no_directory_is_unavailable(
    source: Path, into: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(ArtifactUnavailable):
        await LocalDirectories().fetch(f"{source.parent}/{name}", into)


async def test_limits_hold(source: Path, into: Path) -> None:
    for limits in (TreeLimits(total_bytes=2_000_000), TreeLimits(entries=3)):
        with pytest.raises(ArtifactInvalid, match="more than"):
            await LocalDirectories(limits).fetch(str(source), into)


async def test_a_cancelled_copy_stops_at_once(
    source: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with anyio.CancelScope() as scope:

        def write_once(descriptor: int, chunk: bytes) -> int:
            anyio.from_thread.run_sync(scope.cancel)
            return len(chunk)

        monkeypatch.setattr("localai_worker.adapters.artifacts.tree.os.write", write_once)
        await LocalDirectories().fetch(str(source), into)
    assert scope.cancelled_caught
    assert not (into / "lib/data").exists()
