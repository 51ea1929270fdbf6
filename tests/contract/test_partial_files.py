"""What a broken upload leaves: every `FileSystem` keeps these promises of partial files."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pytest

from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain.errors import FileInUse, FileUnwritable, PathEscapes
from localai_worker.domain.ports.filesystem import (
    FileKind,
    FileSystem,
    IncomingFile,
    PartialFile,
    PartialStat,
    RootedPath,
)

MIB = 1024 * 1024
CONTENT = os.urandom(3 * MIB + 5)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


@dataclass
class Case:
    """A file system with an empty directory `root`, and the same one as another process finds it."""

    filesystem: FileSystem
    again: Callable[[], FileSystem]
    link: Callable[[Path, Path], None]
    root: Path

    def place(self, relative: str = "m/file") -> RootedPath:
        return RootedPath(self.root, PurePosixPath(relative))

    async def open(self, relative: str = "m/file", sha256: str = SHA256) -> PartialFile:
        return await self.filesystem.open_partial(
            self.place(relative), sha256=sha256, total_bytes=len(CONTENT)
        )

    async def names(self, path: Path) -> list[str]:
        return [entry.name for entry in await self.filesystem.list_directory(path)]

    async def content(self, path: Path) -> bytes:
        return await self.filesystem.read(path, limit_bytes=100 * MIB)


@pytest.fixture(params=["memory", "local"])
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    root = tmp_path / "root"
    if request.param == "memory":
        memory = InMemoryFileSystem()
        await memory.make_directory(root)
        return Case(memory, lambda: memory, memory.link, root)
    root.mkdir()
    return Case(LocalFileSystem(), LocalFileSystem, Path.symlink_to, root)


async def test_what_was_kept_is_found_counted_and_gone_on_from(case: Case) -> None:
    assert await case.filesystem.find_partial(case.place()) is None
    partial = await case.open()
    await partial.write(CONTENT[:MIB])
    await partial.write(CONTENT[MIB : MIB + 10])
    await partial.keep()
    await partial.keep()
    found = PartialStat(SHA256, len(CONTENT), MIB + 10)
    for filesystem in (case.filesystem, case.again()):
        assert await filesystem.find_partial(case.place()) == found
    resumed = await case.open()
    assert resumed.size_bytes == MIB + 10
    await resumed.write(CONTENT[MIB + 10 :])
    assert resumed.size_bytes == len(CONTENT)
    assert await resumed.sha256() == SHA256
    published = await resumed.publish()
    assert published == await case.filesystem.locate(case.place())
    assert await case.content(case.root / "m" / "file") == CONTENT
    assert await case.names(case.root / "m") == ["file"]
    assert await case.filesystem.find_partial(case.place()) is None


@pytest.mark.parametrize("first", [0, 1, MIB, 3 * MIB])
async def test_another_process_knows_the_hash_of_what_it_did_not_write(case: Case, first: int) -> None:
    partial = await case.open()
    await partial.write(CONTENT[:first])
    await partial.keep()
    resumed = await case.again().open_partial(case.place(), sha256=SHA256, total_bytes=len(CONTENT))
    assert await resumed.sha256() == hashlib.sha256(CONTENT[:first]).hexdigest()
    for start in range(first, len(CONTENT), 300_000):
        await resumed.write(CONTENT[start : start + 300_000])
    assert await resumed.sha256() == SHA256
    await resumed.publish()
    assert await case.content(case.root / "m" / "file") == CONTENT


async def test_a_file_that_changed_while_it_was_kept_is_hashed_as_it_is_now(case: Case) -> None:
    partial = await case.open()
    await partial.write(b"x" * 100)
    await partial.keep()
    other = await case.again().open_partial(case.place(), sha256=SHA256, total_bytes=len(CONTENT))
    await other.write(b"y" * 100)
    await other.keep()
    resumed = await case.open()
    assert resumed.size_bytes == 200
    assert await resumed.sha256() == hashlib.sha256(b"x" * 100 + b"y" * 100).hexdigest()
    await resumed.discard()


async def test_nobody_sees_a_partial_file_under_its_name_and_the_old_one_stays(case: Case) -> None:
    old = await case.filesystem.open_incoming(case.place())
    await old.write(b"old")
    await old.publish()
    partial = await case.open()
    await partial.write(CONTENT[:MIB])
    await partial.keep()
    assert await case.content(case.root / "m" / "file") == b"old"
    hidden = [name for name in await case.names(case.root / "m") if name != "file"]
    assert all(name.startswith(".file.") and name.endswith(".partial.incoming") for name in hidden)


async def test_a_partial_file_has_one_writer_at_a_time(case: Case) -> None:
    partial = await case.open()
    await partial.write(b"1" * MIB)
    for filesystem in (case.filesystem, case.again()):
        with pytest.raises(FileInUse, match="another upload"):
            await filesystem.open_partial(case.place(), sha256=SHA256, total_bytes=len(CONTENT))
        with pytest.raises(FileInUse):
            await filesystem.open_partial(case.place(), sha256=OTHER, total_bytes=1)
        with pytest.raises(FileInUse):
            await filesystem.drop_partial(case.place())
    assert await case.filesystem.find_partial(case.place()) == PartialStat(SHA256, len(CONTENT), MIB)
    await partial.keep()
    again = await case.open()
    assert again.size_bytes == MIB
    await again.discard()


async def test_files_beside_each_other_are_written_at_the_same_time(case: Case) -> None:
    first, second = await case.open("m/a"), await case.open("m/b")
    await first.discard()
    await second.discard()


@pytest.mark.parametrize(
    ("sha256", "total"),
    [(OTHER, len(CONTENT)), (SHA256, 7), ("", len(CONTENT))],
    ids=["another hash", "another size", "no hash"],
)
async def test_one_of_another_hash_or_size_is_dropped(case: Case, sha256: str, total: int) -> None:
    partial = await case.open()
    await partial.write(CONTENT[:MIB])
    await partial.keep()
    other = await case.filesystem.open_partial(case.place(), sha256=sha256, total_bytes=total)
    assert other.size_bytes == 0
    await other.keep()
    assert await case.filesystem.find_partial(case.place()) == PartialStat(sha256, total, 0)
    anew = await case.open()
    assert anew.size_bytes == 0
    await anew.discard()


async def test_a_discarded_one_leaves_nothing(case: Case) -> None:
    for kept in (False, True):
        partial = await case.open()
        await partial.write(CONTENT[:MIB])
        if kept:
            await partial.keep()
            partial = await case.open()
        await partial.discard()
        await partial.discard()
        await partial.keep()
        assert await case.names(case.root / "m") == []


async def test_a_dropped_one_leaves_nothing_and_a_missing_one_is_fine(case: Case) -> None:
    await case.filesystem.drop_partial(case.place())
    await case.filesystem.drop_partial(case.place(""))
    partial = await case.open()
    await partial.write(CONTENT[:MIB])
    await partial.keep()
    await case.filesystem.drop_partial(case.place())
    assert await case.names(case.root / "m") == []
    assert await case.filesystem.find_partial(case.place()) is None


@pytest.mark.parametrize("end", ["publish", "discard", "keep"])
async def test_writing_or_publishing_after_the_end_is_a_bug_and_says_so(case: Case, end: str) -> None:
    partial = await case.open()
    await getattr(partial, end)()
    with pytest.raises(RuntimeError):
        await partial.write(b"x")
    with pytest.raises(RuntimeError):
        await partial.fill(Pieces([b"x"]), most_bytes=1)
    with pytest.raises(RuntimeError):
        await partial.publish()


@pytest.mark.parametrize("relative", ["", "directory", "file/below", "nul\0", "n" * 256])
async def test_no_partial_file_can_be_where_something_stands_in_the_way(case: Case, relative: str) -> None:
    await case.filesystem.make_directory(case.root / "directory")
    await case.filesystem.write(case.root / "file", b"kept")
    with pytest.raises(FileUnwritable):
        await case.open(relative)
    assert await case.filesystem.find_partial(case.place(relative)) is None
    assert await case.names(case.root) == ["directory", "file"]


async def test_a_link_that_leads_out_of_the_root_is_refused(case: Case) -> None:
    outside = case.root.parent / "outside"
    await case.filesystem.make_directory(outside)
    case.link(case.root / "out", outside)
    case.link(case.root / "dangling", outside / "new")
    for relative in ("out/file", "dangling"):
        with pytest.raises(PathEscapes):
            await case.open(relative)
        with pytest.raises(PathEscapes):
            await case.filesystem.find_partial(case.place(relative))
        with pytest.raises(PathEscapes):
            await case.filesystem.drop_partial(case.place(relative))
    assert await case.names(outside) == []


async def test_long_names_that_begin_alike_are_kept_apart(case: Case) -> None:
    names = ["é" * 120 + end for end in ("one", "two")]
    for number, name in enumerate(names):
        partial = await case.open(name)
        await partial.write(b"x" * (number + 1))
        await partial.keep()
    for number, name in enumerate(names):
        found = await case.filesystem.find_partial(case.place(name))
        assert found is not None
        assert found.size_bytes == number + 1


async def test_a_published_one_is_a_regular_file_that_replaces_the_old(case: Case) -> None:
    await case.filesystem.make_directory(case.root / "m")
    await case.filesystem.write(case.root / "m" / "file", b"old")
    partial = await case.open()
    await partial.write(b"new")
    await partial.publish()
    await partial.discard()
    found = await case.filesystem.locate(case.place())
    assert found is not None
    assert (found.kind, found.size_bytes) == (FileKind.FILE, 3)


# fill, of both kinds of incoming files


@dataclass
class Pieces:
    """A source that gives its pieces one by one, pausing where one is None."""

    pieces: list[bytes | None]
    wanted: list[int] = field(default_factory=list)

    def readinto(self, buffer: memoryview) -> int | None:
        self.wanted.append(len(buffer))
        if not self.pieces:
            return 0
        piece = self.pieces.pop(0)
        if piece is None:
            return None
        now, rest = piece[: len(buffer)], piece[len(buffer) :]
        buffer[: len(now)] = now
        if rest:
            self.pieces.insert(0, rest)
        return len(now)


class Broken(Pieces):
    def readinto(self, buffer: memoryview) -> int | None:
        if not self.pieces:
            raise ConnectionResetError
        return super().readinto(buffer)


@pytest.fixture(params=["incoming", "partial"])
async def incoming(request: pytest.FixtureRequest, case: Case) -> IncomingFile:
    if request.param == "partial":
        return await case.open("filled")
    return await case.filesystem.open_incoming(case.place("filled"))


async def test_filling_takes_what_comes_until_a_pause_the_limit_or_the_end(
    case: Case, incoming: IncomingFile
) -> None:
    await incoming.write(b"before ")
    source = Pieces([b"a" * 10, b"b" * (2 * MIB), None, b"c" * 10, b"d" * 10])
    assert await incoming.fill(source, most_bytes=100 * MIB) == 10 + 2 * MIB
    assert await incoming.fill(source, most_bytes=15) == 15
    assert await incoming.fill(source, most_bytes=100) == 5
    assert await incoming.fill(source, most_bytes=100) == 0
    await incoming.write(b" after")
    content = b"before " + b"a" * 10 + b"b" * (2 * MIB) + b"c" * 10 + b"d" * 10 + b" after"
    assert incoming.size_bytes == len(content)
    assert await incoming.sha256() == hashlib.sha256(content).hexdigest()
    await incoming.publish()
    assert await case.content(case.root / "filled") == content


async def test_filling_never_asks_for_more_than_it_may_take(incoming: IncomingFile) -> None:
    source = Pieces([b"x" * 100])
    await incoming.fill(source, most_bytes=30)
    assert max(source.wanted) == 30
    assert source.pieces == [b"x" * 70]
    await incoming.discard()


async def test_what_a_source_raises_passes_and_what_came_before_stays(incoming: IncomingFile) -> None:
    with pytest.raises(ConnectionResetError):
        await incoming.fill(Broken([b"came"]), most_bytes=100)
    assert incoming.size_bytes == 4
    await incoming.discard()
