"""The promises of the `OutputFiles` port, held on disk and in memory alike."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import anyio
import pytest

from localai_worker.adapters.memory.machine import InMemoryMachine
from localai_worker.adapters.memory.outputs import InMemoryOutputFiles
from localai_worker.adapters.processes.outputs import LocalOutputFiles
from localai_worker.domain.ports.outputs import NewOutput, OutputFiles, full_part

LIMIT_BYTES = 1024 * 1024
READ_BYTES = 128 * 1024


class Stage(Protocol):
    """Writes as a backend does, and looks at what is there."""

    @property
    def files(self) -> OutputFiles: ...

    def append(self, path: Path, data: bytes) -> None: ...

    def content(self, path: Path) -> bytes | None: ...


class LocalStage:
    """Keeps its descriptors, as a backend keeps the ones it was started with."""

    def __init__(self) -> None:
        self.files = LocalOutputFiles(LIMIT_BYTES)
        self.descriptors: dict[Path, int] = {}

    def append(self, path: Path, data: bytes) -> None:
        if path not in self.descriptors:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.descriptors[path] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(self.descriptors[path], data)

    def content(self, path: Path) -> bytes | None:
        return path.read_bytes() if path.exists() else None

    def close(self) -> None:
        for descriptor in self.descriptors.values():
            os.close(descriptor)


class MemoryStage:
    def __init__(self) -> None:
        self.machine = InMemoryMachine()
        self.files = InMemoryOutputFiles(self.machine, LIMIT_BYTES, READ_BYTES)

    def append(self, path: Path, data: bytes) -> None:
        self.machine.outputs[path] = self.machine.outputs.pop(path, "") + data.decode()
        self.machine.wake_readers()

    def content(self, path: Path) -> bytes | None:
        text = self.machine.outputs.get(path)
        return None if text is None else text.encode()

    def close(self) -> None:
        pass


@pytest.fixture(params=[MemoryStage, LocalStage])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = request.param()
    yield stage
    stage.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "qwen#0.stdout.log"


async def news(stage: Stage) -> NewOutput:
    with anyio.fail_after(10):
        (new,) = await stage.files.news()
        return new


async def test_what_is_appended_is_told_once_and_in_order(stage: Stage, path: Path) -> None:
    stage.append(path, b"first\n")
    stage.files.follow(path, replay_bytes=100)
    assert await news(stage) == NewOutput(path, b"first\n")
    stage.append(path, b"second\n")
    assert await news(stage) == NewOutput(path, b"second\n")


async def test_news_wait_until_there_are_some(stage: Stage, path: Path) -> None:
    stage.files.follow(path, replay_bytes=0)
    found: list[NewOutput] = []

    async def read() -> None:
        found.append(await news(stage))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.sleep(0.02)
        assert found == []
        stage.append(path, b"late")
    assert found == [NewOutput(path, b"late")]


async def test_a_file_followed_while_news_are_waited_for_is_heard(stage: Stage, path: Path) -> None:
    found: list[NewOutput] = []

    async def read() -> None:
        found.append(await news(stage))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.sleep(0.02)
        stage.append(path, b"x")
        stage.files.follow(path, replay_bytes=9)
    assert found == [NewOutput(path, b"x")]


async def test_only_the_end_of_what_was_there_is_replayed(stage: Stage, path: Path) -> None:
    stage.append(path, b"0123456789")
    stage.files.follow(path, replay_bytes=4)
    assert await news(stage) == NewOutput(path, b"6789")


async def test_following_anew_begins_anew(stage: Stage, path: Path) -> None:
    stage.append(path, b"abc")
    for _ in range(2):
        stage.files.follow(path, replay_bytes=2)
        assert (await news(stage)).data == b"bc"


async def test_finishing_tells_the_last_words_and_nothing_afterwards(stage: Stage, path: Path) -> None:
    stage.files.follow(path, replay_bytes=0)
    other = path.with_name("other.log")
    stage.files.follow(other, replay_bytes=0)
    stage.append(path, b"last words")
    assert await stage.files.finish(path) == NewOutput(path, b"last words")
    stage.append(path, b"ghost")
    stage.append(other, b"alive")
    assert await news(stage) == NewOutput(other, b"alive")
    assert await stage.files.finish(path) == NewOutput(path, b"")


async def test_a_full_file_is_moved_aside_and_goes_on_empty(stage: Stage, path: Path) -> None:
    """N-B10, G-W9: output of a backend that runs for months does not fill the disk."""
    stage.files.follow(path, replay_bytes=0)
    block = b"x" * (READ_BYTES - 1) + b"\n"
    for _ in range(LIMIT_BYTES // READ_BYTES):
        stage.append(path, block)
        assert (await news(stage)).data == block
    assert stage.content(path) == b""
    assert stage.content(full_part(path)) == block * 8
    stage.append(path, b"and on\n")
    assert await news(stage) == NewOutput(path, b"and on\n")
    assert stage.content(path) == b"and on\n"


async def test_of_a_flood_the_oldest_part_is_left_out(stage: Stage, path: Path) -> None:
    stage.files.follow(path, replay_bytes=0)
    stage.append(path, b"a" * 1000 + b"b" * READ_BYTES)
    new = await news(stage)
    assert (new.data, new.skipped_bytes) == (b"b" * READ_BYTES, 1000)


async def test_pruning_removes_what_was_written_longest_ago_and_nothing_followed(
    stage: Stage, path: Path
) -> None:
    """N-B10, G-W9: nor do the files of models that nobody runs any more."""
    names = ["followed", "oldest", "kept", "older", "newest"]
    places = {name: path.with_name(name) for name in names}
    for age, place in enumerate(places.values()):
        stage.append(place, b"x" * 100)
        if isinstance(stage, LocalStage):
            os.utime(place, (age, age))
    stage.files.follow(places["followed"], replay_bytes=0)
    await stage.files.prune(path.parent, keep={places["kept"]}, limit_bytes=300)
    assert [name for name in names if stage.content(places[name]) is not None] == [
        "followed",
        "kept",
        "newest",
    ]
    await stage.files.prune(path.parent / "missing", keep=(), limit_bytes=0)


async def test_a_full_file_that_cannot_be_kept_is_emptied_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = LocalOutputFiles(limit_bytes=10)
    path = tmp_path / "out"
    path.touch()
    (full_part(path) / "in the way").mkdir(parents=True)
    files.follow(path, replay_bytes=0)
    path.write_bytes(b"0123456789")
    with anyio.fail_after(10):
        assert await files.news() == (NewOutput(path, b"0123456789"),)
    assert path.read_bytes() == b""
    assert f"full output is not kept: path={path}" in caplog.text


async def test_a_file_that_cannot_be_read_is_given_up_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = LocalOutputFiles()
    directory = tmp_path / "directory"
    directory.mkdir()
    good = tmp_path / "good"
    good.write_bytes(b"x")
    files.follow(directory, replay_bytes=10**6)
    files.follow(good, replay_bytes=9)
    with anyio.fail_after(10):
        assert await files.news() == (NewOutput(good, b"x"),)
    assert f"output is not followed any more: path={directory}" in caplog.text
