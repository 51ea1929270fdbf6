"""Every `RangedFiles` keeps these promises: the in-memory one and the machine's own."""

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import anyio
import pytest

from localai_worker.adapters.filesystem import assembled_file, assembly_note, preallocate
from localai_worker.adapters.filesystem.hidden_file import hidden_name
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.filesystem.ranged_files import LocalRangedFiles
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.ranged_files import InMemoryRangedFiles
from localai_worker.domain.byte_spans import ByteSpan
from localai_worker.domain.errors import FileUnreadable, FileUnwritable, NoSpace, PathEscapes
from localai_worker.domain.ports.filesystem import FileKind, FileSystem, RootedPath
from localai_worker.domain.ports.ranged_files import RangedFiles


@dataclass
class Case:
    """Files by ranges, the file system they lie on, and ways to set a scene behind their back."""

    ranged: RangedFiles
    files: FileSystem
    top: Path
    put: Callable[[Path, bytes], None]
    link: Callable[[Path, Path], None]

    def place(self, relative: str) -> RootedPath:
        return RootedPath(self.top, PurePosixPath(relative))

    async def content(self, relative: str) -> bytes:
        return await self.files.read(self.top / relative, limit_bytes=2**20)

    async def names(self) -> list[str]:
        return [entry.name for entry in await self.files.list_directory(self.top)]


@pytest.fixture(params=["memory", "local"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    top = tmp_path / "root"
    if request.param == "memory":
        memory = InMemoryFileSystem()
        memory.put(top / "old", b"old")
        return Case(InMemoryRangedFiles(memory), memory, top, memory.put, memory.link)
    put_on_disk(top / "old", b"old")
    return Case(LocalRangedFiles(), LocalFileSystem(), top, put_on_disk, link_on_disk)


def put_on_disk(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def link_on_disk(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def view(content: bytes) -> memoryview:
    return memoryview(content)


async def test_ranges_in_any_order_make_the_file_and_an_older_one_is_replaced_whole(case: Case) -> None:
    file = await case.ranged.assemble(case.place("old"), version="v1", size_bytes=6)
    assert file.missing == (ByteSpan(0, 6),)
    file.write_at(4, view(b"ef"))
    file.write_at(0, view(b"ab"))
    assert file.missing == (ByteSpan(2, 4),)
    assert await case.content("old") == b"old"
    file.write_at(2, view(b"cd"))
    shown = await file.publish()
    await file.settle()
    await file.settle()
    assert await case.content("old") == b"abcdef"
    assert (shown.kind, shown.size_bytes) == (FileKind.FILE, 6)
    assert shown == await case.files.stat(case.top / "old")
    assert await case.names() == ["old"]


async def test_a_small_file_appears_in_one_go_and_an_older_one_is_replaced(case: Case) -> None:
    seen: list[bytes] = []
    for relative, content in (("old", b"new"), ("a/b/small", b"content"), ("empty", b"")):
        file = await case.ranged.put_whole(case.place(relative), content, seen.append)
        assert await case.content(relative) == content
        assert (file.stat.kind, file.stat.size_bytes) == (FileKind.FILE, len(content))
        assert file.stat == await case.files.stat(case.top / relative)
        await file.settle()
        await file.settle()
    assert seen == [b"new", b"content", b""]
    assert await case.names() == ["a", "empty", "old"]


async def test_who_reads_the_older_file_goes_on_reading_it_when_a_small_one_replaces_it(case: Case) -> None:
    reader = await case.files.open_outgoing(case.place("old"))
    assert reader is not None
    await (await case.ranged.put_whole(case.place("old"), b"new", lambda _: None)).settle()
    assert b"".join([chunk async for chunk in reader.chunks()]) == b"old"
    await reader.close()


async def test_many_files_settle_at_the_same_time(case: Case) -> None:
    small = [await case.ranged.put_whole(case.place(f"a/{n}"), b"x", lambda _: None) for n in range(5)]
    large = await case.ranged.assemble(case.place("b/large"), version="v1", size_bytes=1)
    large.write_at(0, view(b"x"))
    await large.publish()
    async with anyio.create_task_group() as tasks:
        for settle in (*(file.settle for file in small), large.settle):
            tasks.start_soon(settle)
    assert [await case.content(relative) for relative in ("a/0", "a/4", "b/large")] == [b"x"] * 3


async def test_what_is_not_approved_does_not_appear(case: Case) -> None:
    def refuse(content: bytes) -> None:
        raise FileUnreadable(case.top, f"{content!r} will not do")

    for relative in ("old", "d/new"):
        with pytest.raises(FileUnreadable, match="will not do"):
            await case.ranged.put_whole(case.place(relative), b"new", refuse)
    assert await case.content("old") == b"old"
    assert await case.names() == ["old"]


async def test_an_empty_file_is_whole_at_once_and_parents_are_made(case: Case) -> None:
    file = await case.ranged.assemble(case.place("a/b/empty"), version="v1", size_bytes=0)
    await file.publish()
    await file.settle()
    assert await case.content("a/b/empty") == b""


async def test_who_reads_the_older_file_goes_on_reading_it(case: Case) -> None:
    reader = await case.files.open_outgoing(case.place("old"))
    assert reader is not None
    file = await case.ranged.assemble(case.place("old"), version="v1", size_bytes=3)
    file.write_at(0, view(b"new"))
    await file.publish()
    await file.settle()
    assert b"".join([chunk async for chunk in reader.chunks()]) == b"old"
    await reader.close()


async def test_a_file_with_gaps_is_not_published(case: Case) -> None:
    file = await case.ranged.assemble(case.place("old"), version="v1", size_bytes=6)
    file.write_at(0, view(b"abc"))
    with pytest.raises(ValueError, match="lacks"):
        await file.publish()
    await file.discard()
    await file.discard()
    assert await case.names() == ["old"]
    assert await case.content("old") == b"old"


async def test_nothing_goes_beyond_the_size(case: Case) -> None:
    file = await case.ranged.assemble(case.place("new"), version="v1", size_bytes=3)
    with pytest.raises(FileUnwritable, match="more than the 3 bytes"):
        file.write_at(2, view(b"cd"))
    await file.discard()


async def test_what_was_kept_is_gone_on_with_for_the_same_version_only(case: Case) -> None:
    first = await case.ranged.assemble(case.place("new"), version="v1", size_bytes=6)
    first.write_at(3, view(b"de"))
    await first.keep()
    await first.keep()
    assert await case.ranged.kept(case.place("new")) == "v1"
    second = await case.ranged.assemble(case.place("new"), version="v1", size_bytes=6)
    assert second.missing == (ByteSpan(0, 3), ByteSpan(5, 6))
    second.write_at(0, view(b"abc"))
    second.write_at(5, view(b"f"))
    await second.publish()
    await second.settle()
    assert await case.content("new") == b"abcdef"
    assert await case.ranged.kept(case.place("new")) is None

    third = await case.ranged.assemble(case.place("new"), version="v1", size_bytes=6)
    third.write_at(0, view(b"xyz"))
    await third.keep()
    for version, size_bytes in (("v2", 6), ("v2", 7)):
        other = await case.ranged.assemble(case.place("new"), version=version, size_bytes=size_bytes)
        assert other.missing == (ByteSpan(0, size_bytes),)
        await other.keep()
    assert [name for name in await case.names() if name.startswith(".")] != []


async def test_a_discarded_file_leaves_nothing_to_go_on_with(case: Case) -> None:
    file = await case.ranged.assemble(case.place("new"), version="v1", size_bytes=6)
    file.write_at(0, view(b"abc"))
    await file.discard()
    assert await case.ranged.kept(case.place("new")) is None
    assert await case.names() == ["old"]


async def test_two_attempts_at_once_keep_apart(case: Case) -> None:
    one = await case.ranged.assemble(case.place("new"), version="v1", size_bytes=3)
    one.write_at(0, view(b"ab"))
    other = await case.ranged.assemble(case.place("new"), version="v1", size_bytes=3)
    assert other.missing == (ByteSpan(0, 3),)
    other.write_at(0, view(b"xyz"))
    await other.publish()
    await other.settle()
    one.write_at(2, view(b"c"))
    await one.publish()
    await one.settle()
    assert await case.content("new") == b"abc"
    assert await case.names() == ["new", "old"]


async def test_a_digest_waits_for_bytes_that_are_still_to_come(case: Case) -> None:
    file = await case.ranged.assemble(case.place("new"), version="v1", size_bytes=6)
    got: list[bytes] = []

    async def hash_it() -> None:
        got.append(await file.digest("md5", ByteSpan(1, 6)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hash_it)
        await anyio.wait_all_tasks_blocked()
        assert got == []
        file.write_at(3, view(b"def"))
        file.write_at(0, view(b"abc"))
    assert got == [hashlib.md5(b"bcdef").digest()]
    assert await file.digest("sha256", ByteSpan(0, 2)) == hashlib.sha256(b"ab").digest()
    await file.discard()


async def test_a_digest_of_bytes_that_never_come_fails_when_the_file_ends(case: Case) -> None:
    file = await case.ranged.assemble(case.place("new"), version="v1", size_bytes=6)

    async def hash_it() -> None:
        with pytest.raises(FileUnreadable, match="given up"):
            await file.digest("md5", ByteSpan(0, 6))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hash_it)
        await anyio.wait_all_tasks_blocked()
        await file.keep()


async def test_a_directory_in_the_way_is_refused(case: Case) -> None:
    case.put(case.top / "directory" / "file", b"")
    with pytest.raises(FileUnwritable):
        await case.ranged.assemble(case.place("directory"), version="v1", size_bytes=1)
    with pytest.raises(FileUnwritable):
        await case.ranged.assemble(case.place("."), version="v1", size_bytes=1)
    for relative in ("directory", "."):
        with pytest.raises(FileUnwritable):
            await case.ranged.put_whole(case.place(relative), b"x", lambda _: None)
    assert await case.names() == ["directory", "old"]


async def test_nothing_outside_the_root_is_touched(case: Case) -> None:
    case.put(case.top.parent / "outside" / "secret", b"secret")
    case.link(case.top / "out", case.top.parent / "outside")
    case.link(case.top / "leak", case.top.parent / "outside" / "secret")
    for relative in ("out/new", "leak"):
        with pytest.raises(PathEscapes):
            await case.ranged.assemble(case.place(relative), version="v1", size_bytes=1)
        with pytest.raises(PathEscapes):
            await case.ranged.put_whole(case.place(relative), b"x", lambda _: None)
    with pytest.raises(PathEscapes):
        await case.ranged.kept(case.place("out/new"))
    for relative in ("out/secret", "leak"):
        with pytest.raises(PathEscapes):
            await case.ranged.open_source(case.place(relative))


async def test_a_source_reads_ranges_and_stays_readable(case: Case) -> None:
    assert await case.ranged.open_source(case.place("absent")) is None
    source = await case.ranged.open_source(case.place("old"))
    assert source is not None
    await case.files.remove_tree(case.top / "old")
    assert source.size_bytes == 3
    assert (source.read_at(0, 2), source.read_at(1, 100)) == (b"ol", b"ld")
    assert await source.digest("md5", ByteSpan(1, 3)) == hashlib.md5(b"ld").digest()
    await source.close()
    await source.close()


async def test_a_source_is_a_regular_file(case: Case) -> None:
    case.put(case.top / "directory" / "file", b"")
    with pytest.raises(FileUnreadable):
        await case.ranged.open_source(case.place("directory"))


async def test_real_paths_follow_links_and_keep_what_is_missing(case: Case) -> None:
    (top,) = await case.ranged.real_paths(case.top)
    case.link(case.top / "link", case.top / "directory")
    through, beside = await case.ranged.real_paths(case.top / "link" / "absent", case.top / "absent")
    assert (through, beside) == (top / "directory" / "absent", top / "absent")


# The machine's own


async def test_what_a_killed_process_wrote_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembled_file, "NOTE_EVERY_BYTES", 4)
    place = RootedPath(tmp_path, PurePosixPath("new"))
    killed = await LocalRangedFiles().assemble(place, version="v1", size_bytes=10)
    killed.write_at(2, view(b"cdef"))
    killed.write_at(8, view(b"i"))  # too little for another note
    os.close(killed._file)  # the lock goes with the process
    again = await LocalRangedFiles().assemble(place, version="v1", size_bytes=10)
    assert again.missing == (ByteSpan(0, 2), ByteSpan(6, 10))
    await again.discard()
    os.close(killed._directory)


async def test_after_a_power_cut_only_what_was_synced_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembled_file, "NOTE_EVERY_BYTES", 4)
    place = RootedPath(tmp_path, PurePosixPath("new"))
    cut = await LocalRangedFiles().assemble(place, version="v1", size_bytes=10)
    cut.write_at(0, view(b"abcdef"))
    os.close(cut._file)
    monkeypatch.setattr(assembly_note, "boot_id", lambda: "another boot")
    assert await LocalRangedFiles().kept(place) is None
    kept = await LocalRangedFiles().assemble(place, version="v1", size_bytes=10)
    kept.write_at(0, view(b"abc"))
    await kept.keep()
    monkeypatch.setattr(assembly_note, "boot_id", lambda: "a third boot")
    assert await LocalRangedFiles().kept(place) == "v1"
    os.close(cut._directory)


async def test_a_torn_note_counts_for_nothing(tmp_path: Path) -> None:
    place = RootedPath(tmp_path, PurePosixPath("new"))
    file = await LocalRangedFiles().assemble(place, version="v1", size_bytes=10)
    file.write_at(0, view(b"abc"))
    await file.keep()
    hidden = tmp_path / hidden_name("new")
    content = bytearray(hidden.read_bytes())
    content[20] ^= 1
    hidden.write_bytes(content)
    assert await LocalRangedFiles().kept(place) is None


async def test_a_full_disk_says_so_before_a_byte_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = RootedPath(tmp_path, PurePosixPath("new"))

    def full(descriptor: int, size_bytes: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(assembled_file, "take_room", full)
    with pytest.raises(NoSpace, match="free some"):
        await LocalRangedFiles().assemble(place, version="v1", size_bytes=10)
    assert list(tmp_path.iterdir()) == []


async def test_one_file_the_disk_loses_harms_no_other_and_no_descriptor_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, ranged, fsync = open_descriptors(), LocalRangedFiles(), os.fsync
    places = [RootedPath(tmp_path, PurePosixPath(name)) for name in ("a/1", "a/lost", "b/1")]
    files = [await ranged.put_whole(place, b"x", lambda _: None) for place in places]
    lost, synced = (tmp_path / "a" / "lost").stat().st_ino, []

    def fail_for_one(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        if synced[-1] == lost:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_for_one)
    outcomes: dict[int, str] = {}

    async def settle(number: int) -> None:
        try:
            await files[number].settle()
        except FileUnwritable as error:
            outcomes[number] = str(error)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(settle, number)
    monkeypatch.undo()
    assert list(outcomes) == [1]
    assert "a/lost" in outcomes[1]
    assert sorted(synced) == sorted(path.stat().st_ino for path in tmp_path.rglob("*"))  # each just once
    assert open_descriptors() == before


async def test_a_small_file_that_does_not_fit_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def full(descriptor: int, content: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoSpace, match="free some"):
        await LocalRangedFiles().put_whole(
            RootedPath(tmp_path, PurePosixPath("file")), b"new", lambda _: None
        )
    monkeypatch.undo()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_room_is_taken_at_once_or_the_file_stays_sparse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "file").open("wb") as file:
        preallocate.take_room(file.fileno(), 2**20)
        assert os.fstat(file.fileno()).st_size == 2**20
        with pytest.raises(OSError, match=r".+"):
            preallocate.take_room(file.fileno(), 2**62)
    monkeypatch.setattr(preallocate, "_fallocate", lambda: None)
    with (tmp_path / "sparse").open("wb") as file:
        preallocate.take_room(file.fileno(), 2**20)
        assert os.fstat(file.fileno()).st_size == 2**20
