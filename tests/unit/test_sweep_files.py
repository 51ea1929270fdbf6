"""The janitor of the file server, in virtual time."""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import anyio
import pytest

from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.loop_clock import LoopClock
from localai_worker.adapters.memory.open_files import InMemoryOpenFiles
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.errors import FileUnwritable
from localai_worker.domain.ports.filesystem import RootedPath
from localai_worker.domain.receive_files import ReceiveFiles
from localai_worker.domain.sweep_files import EVERY_S, UNFINISHED_S, SweepFiles
from localai_worker.domain.validate_paths import FileRoots

ROOTS = FileRoots(Path("/models"), Path("/data"), Path("/staging"))
HOUR_S = 3600.0
KEEP_S = 24 * HOUR_S


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@dataclass
class Node:
    disk: InMemoryFileSystem = field(default_factory=lambda: InMemoryFileSystem(clock=LoopClock()))
    opened: InMemoryOpenFiles = field(default_factory=InMemoryOpenFiles)

    def __post_init__(self) -> None:
        self.files = ReceiveFiles(self.disk, ROOTS)
        self.sweeper = SweepFiles(self.disk, ROOTS, LoopClock(), self.opened)

    async def put(self, key: str, content: bytes = b"x") -> None:
        upload = await self.files.receive(key)
        assert not isinstance(upload, Path)
        await upload.write(content)
        await upload.finish()

    async def part(self, key: str, *, keep: bool = True) -> None:
        upload = await self.files.receive(key, declared_sha256="0" * 64, content_range="bytes 0-9/10")
        assert not isinstance(upload, Path)
        await upload.write(b"12345")
        if keep:
            await upload.abort()

    def names(self) -> list[str]:
        return [str(path) for path in self.disk.files() if not path.name.endswith(".sha256")]


@pytest.fixture
def node() -> Node:
    return Node()


async def test_inputs_and_results_go_after_their_time_and_models_stay(node: Node) -> None:
    """H-14: nobody ever deletes them, and staging fills the disk."""
    await node.files.prepare()
    for key in ("models/m/x", "data/out.bin", "ephemeral/inputs/0123abcd/a.png", "other/kept", "plain"):
        await node.put(key)
    result = await node.files.new_temporary()
    await node.files.probe(result.name)  # which puts a hash beside it
    before = node.names()
    await anyio.sleep(KEEP_S - 1)
    await node.sweeper.sweep()
    assert node.names() == before
    await anyio.sleep(2)
    await node.sweeper.sweep()
    assert node.names() == ["/data/out.bin", "/models/m/x", "/staging/other/kept", "/staging/plain"]
    assert node.disk.get(result.with_name(f"{result.name}.sha256")) is None
    assert [entry.name for entry in await node.disk.list_directory(ROOTS.staging / "ephemeral")] == []


async def test_what_a_process_has_open_stays(node: Node) -> None:
    """H-14"""
    await node.put("ephemeral/inputs/1/a.png")
    await node.put("ephemeral/inputs/1/b.png")
    node.opened.opened.add(ROOTS.staging / "ephemeral/inputs/1/a.png")
    await anyio.sleep(KEEP_S + 1)
    await node.sweeper.sweep()
    assert node.names() == ["/staging/ephemeral/inputs/1/a.png"]
    node.opened.opened.clear()
    await node.sweeper.sweep()
    assert node.names() == []


async def test_beyond_the_limit_the_oldest_go_first_but_never_young_ones(node: Node) -> None:
    node.sweeper.limit_bytes = 2500
    for number in range(4):
        await node.put(f"ephemeral/inputs/{number}/x", b"x" * 1000)
        await anyio.sleep(HOUR_S)
    await node.put("ephemeral/inputs/young/x", b"x" * 5000)
    await node.sweeper.sweep()
    assert node.names() == ["/staging/ephemeral/inputs/young/x"]
    await anyio.sleep(HOUR_S)
    await node.put("ephemeral/inputs/1/x", b"x" * 2000)
    await node.sweeper.sweep()
    assert node.names() == ["/staging/ephemeral/inputs/1/x"]


async def test_parts_that_nobody_goes_on_with_go_and_younger_ones_stay(node: Node) -> None:
    """H-14: stale partial files are dropped."""
    await node.put("models/m/x", b"the old one")
    await node.part("models/m/x")
    await node.part("models/m/y")
    await node.part("ephemeral/inputs/1/x")
    await anyio.sleep(KEEP_S - 10)
    await node.part("data/z")
    await node.sweeper.sweep()
    assert await node.files.probe("models/m/y") is not None
    await anyio.sleep(20)
    await node.sweeper.sweep()
    assert node.names()[1:] == ["/models/m/x"]
    assert await node.files.probe("models/m/y") is None
    assert [entry.name for entry in await node.disk.list_directory(Path("/models/m"))] == ["x", "x.sha256"]
    held = await node.files.probe("data/z")
    assert held is not None
    assert held.size_bytes == 5


async def test_leftovers_of_a_killed_worker_go_and_running_uploads_stay(node: Node) -> None:
    """H-14"""
    left = await node.disk.open_incoming(RootedPath(ROOTS.models, PurePosixPath("m/x")))
    await left.write(b"half")
    await anyio.sleep(UNFINISHED_S + 1)
    running = await node.files.receive("models/m/y")
    assert not isinstance(running, Path)
    await running.write(b"half")
    await node.sweeper.sweep()
    assert len(node.names()) == 1
    assert ".y." in node.names()[0]
    await running.finish()
    assert node.names() == ["/models/m/y"]


async def test_it_sweeps_at_once_and_every_quarter_of_an_hour(node: Node) -> None:
    await node.put("ephemeral/inputs/1/x")
    await anyio.sleep(KEEP_S - 1.5 * EVERY_S)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.sweeper.sweep_forever)
        await anyio.sleep(1.4 * EVERY_S)
        assert node.names() != []
        await anyio.sleep(EVERY_S)
        assert node.names() == []
        tasks.cancel_scope.cancel()


async def test_what_cannot_be_removed_is_told_and_tried_again(
    node: Node, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.put("ephemeral/inputs/1/x")
    await node.put("ephemeral/inputs/2/x")
    await anyio.sleep(KEEP_S + 1)
    remove = node.disk.remove_file

    async def refuse(place: RootedPath) -> None:
        if "1" in place.relative.parts:
            raise FileUnwritable(place.path, "permission denied")
        await remove(place)

    with monkeypatch.context() as patch:
        patch.setattr(node.disk, "remove_file", refuse)
        await node.sweeper.sweep()
    assert "permission denied" in caplog.text
    assert node.names() == ["/staging/ephemeral/inputs/1/x"]
    await node.sweeper.sweep()
    assert node.names() == []
