"""What only the machine's own file system has: errno, fsync, pipes, descriptors, races."""

import errno
import hashlib
import os
import resource
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.filesystem import beneath, trees
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.domain.errors import FileUnreadable, FileUnwritable, NoSpace, PathEscapes, WorkerError
from localai_worker.domain.ports.filesystem import FileKind, RootedPath

MIB = 1024 * 1024


@pytest.fixture
def disk() -> LocalFileSystem:
    return LocalFileSystem()


def place(root: Path, relative: str = "file") -> RootedPath:
    return RootedPath(root, PurePosixPath(relative))


def open_descriptors() -> int:
    return len(names_in(Path("/proc/self/fd")))


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def is_directory(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """No file of this process may grow over 3 MiB: a real failure of a real write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files_only")
async def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(
    disk: LocalFileSystem, tmp_path: Path
) -> None:
    """H-1"""
    (tmp_path / "file").write_bytes(b"old")
    before = open_descriptors()
    incoming = await disk.open_incoming(place(tmp_path))
    for _ in range(3):
        await incoming.write(b"x" * MIB)
    with pytest.raises(FileUnwritable, match="File too large"):
        await incoming.write(b"x" * MIB)
    await incoming.discard()
    with pytest.raises(FileUnwritable, match="File too large"):
        await disk.write(tmp_path / "file", b"x" * (4 * MIB))
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]
    assert open_descriptors() == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(("call", "size_bytes"), [("write", MIB), ("write", 1), ("fsync", 1)])
async def test_a_full_disk_or_quota_is_no_space(
    disk: LocalFileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    call: str,
    size_bytes: int,
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    incoming = await disk.open_incoming(place(tmp_path))

    def fail(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    async def finish() -> None:
        await incoming.write(b"x" * size_bytes)
        await incoming.publish()

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(NoSpace, match="free some and try again"):
            await finish()
    await incoming.discard()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


async def test_content_is_synced_before_the_name_and_the_name_before_success(
    disk: LocalFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H-10: upstream syncs nothing, and a power loss may keep the hash and lose the file."""
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        steps.append("sync directory" if is_directory(descriptor) else "sync file")
        fsync(descriptor)

    def note_rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        steps.append("rename")
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    incoming = await disk.open_incoming(place(tmp_path))
    await incoming.write(b"content")
    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    await incoming.publish()
    assert steps == ["sync file", "rename", "sync directory"]


async def test_a_file_system_that_cannot_sync_directories_is_no_error(
    disk: LocalFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def refuse_directories(descriptor: int) -> None:
        if is_directory(descriptor):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_directories)
    incoming = await disk.open_incoming(place(tmp_path, "d/file"))
    await incoming.publish()
    assert (tmp_path / "d" / "file").read_bytes() == b""


async def test_a_directory_that_becomes_a_link_while_it_is_entered_leads_nowhere(
    disk: LocalFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "d").mkdir(parents=True)
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    enter = beneath.enter

    def swap_then_enter(parent: int, name: str, *, create: bool = False) -> int:
        if not (root / "d").is_symlink():
            (root / "d").rmdir()
            (root / "d").symlink_to(outside)
        return enter(parent, name, create=create)

    monkeypatch.setattr(beneath, "enter", swap_then_enter)
    before = open_descriptors()
    for ask in (disk.locate, disk.open_outgoing, disk.open_incoming):
        with pytest.raises(PathEscapes):
            await ask(place(root, "d/file"))
        (root / "d").unlink()
        (root / "d").mkdir()
    assert open_descriptors() == before
    assert (outside / "file").read_bytes() == b"theirs"


async def test_a_file_that_becomes_a_link_before_it_is_opened_is_not_read(
    disk: LocalFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "root" / "file").write_bytes(b"ours")
    enter = beneath._enter_without_links

    def enter_then_swap(where: RootedPath, *, create: bool) -> tuple[int, os.stat_result | None] | None:
        entered = enter(where, create=create)
        (tmp_path / "root" / "file").unlink()
        (tmp_path / "root" / "file").symlink_to(tmp_path / "theirs")
        return entered

    monkeypatch.setattr(beneath, "_enter_without_links", enter_then_swap)
    before = open_descriptors()
    assert await disk.open_outgoing(place(tmp_path / "root", "file")) is None
    assert open_descriptors() == before


@pytest.mark.parametrize("swapped", ["d", "d/file"])
async def test_a_link_put_there_after_the_check_is_not_followed(
    disk: LocalFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    """H-8: upstream checks the path and then opens it again by name."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "d").mkdir(parents=True)
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    resolve = beneath.resolve

    def resolve_then_swap(checked: RootedPath) -> beneath.Resolved:
        resolved = resolve(checked)
        if swapped == "d" and not (root / "d").is_symlink():
            (root / "d").rmdir()
            (root / "d").symlink_to(outside)
        elif swapped == "d/file" and not (root / "d" / "file").is_symlink():
            (root / "d" / "file").symlink_to(outside / "file")
        return resolved

    monkeypatch.setattr(beneath, "resolve", resolve_then_swap)
    monkeypatch.setattr(beneath, "_enter_without_links", lambda *_, **__: None)  # as where a link is met
    before = open_descriptors()
    assert await disk.locate(place(root, "d/file")) is None
    (root / swapped).unlink()
    (root / "d").mkdir(exist_ok=True)
    assert await disk.open_outgoing(place(root, "d/file")) is None
    (root / swapped).unlink()
    (root / "d").mkdir(exist_ok=True)
    try:
        incoming = await disk.open_incoming(place(root, "d/file"))
        await incoming.write(b"ours")
        await incoming.publish()
    except WorkerError:
        pass
    assert names_in(outside) == ["file"]
    assert (outside / "file").read_bytes() == b"theirs"
    assert open_descriptors() == before


async def test_a_directory_moved_while_a_file_comes_in_takes_it_along(
    disk: LocalFileSystem, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    incoming = await disk.open_incoming(place(tmp_path / "root", "d/file"))
    (tmp_path / "root" / "d").rename(tmp_path / "root" / "moved")
    (tmp_path / "root" / "d").symlink_to(outside)
    await incoming.write(b"content")
    await incoming.publish()
    assert (tmp_path / "root" / "moved" / "file").read_bytes() == b"content"
    assert names_in(outside) == []


async def test_a_pipe_is_of_another_kind_and_does_not_make_us_wait(
    disk: LocalFileSystem, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    found = await disk.stat(tmp_path / "pipe")
    assert found is not None
    assert found.kind is FileKind.OTHER
    with pytest.raises(FileUnreadable, match="not a regular file"):
        await disk.open_outgoing(place(tmp_path, "pipe"))
    with pytest.raises(FileUnreadable, match="not a regular file"):
        await disk.read(tmp_path / "pipe", limit_bytes=10)
    assert await disk.walk_files(place(tmp_path, "")) == (PurePosixPath("pipe"),)


async def test_a_file_that_shrinks_while_it_goes_out_is_an_error_not_a_short_file(
    disk: LocalFileSystem, tmp_path: Path
) -> None:
    """H-13: upstream ends the answer as if that were all."""
    (tmp_path / "file").write_bytes(b"x" * (2 * MIB))
    outgoing = await disk.open_outgoing(place(tmp_path))
    assert outgoing is not None
    chunks = outgoing.chunks()
    assert len(await anext(chunks)) == MIB
    os.truncate(tmp_path / "file", MIB + 10)
    assert len(await anext(chunks)) == 10
    with pytest.raises(FileUnreadable, match="ends at byte 1048586 of 2097152"):
        await anext(chunks)
    await outgoing.close()


async def test_a_file_that_grows_while_it_goes_out_ends_where_it_ended(
    disk: LocalFileSystem, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    outgoing = await disk.open_outgoing(place(tmp_path))
    assert outgoing is not None
    with (tmp_path / "file").open("ab") as file:
        file.write(b"67890")
    assert [chunk async for chunk in outgoing.chunks()] == [b"12345"]
    await outgoing.close()


async def test_reading_on_after_close_raises(disk: LocalFileSystem, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    outgoing = await disk.open_outgoing(place(tmp_path))
    assert outgoing is not None
    await outgoing.close()
    with pytest.raises(FileUnreadable, match="closed"):
        await anext(outgoing.chunks())


async def test_modes_are_less_the_umask(disk: LocalFileSystem, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        incoming = await disk.open_incoming(place(tmp_path, "new/file"), mode=0o666)
        await incoming.publish()
        await disk.write(tmp_path / "written", b"", mode=0o600)
        await disk.make_directory(tmp_path / "a" / "b", mode=0o777)
        empty = await disk.create_empty(tmp_path, prefix="p", suffix="s")
        private = await disk.private_directory(tmp_path / "tree")
    finally:
        os.umask(old)
    modes = {
        path: path.stat().st_mode & 0o777
        for path in (
            tmp_path / "new/file",
            tmp_path / "new",
            tmp_path / "written",
            tmp_path / "a",
            empty,
            private,
        )
    }
    assert list(modes.values()) == [0o640, 0o750, 0o600, 0o750, 0o600, 0o750]


async def test_names_that_are_not_utf_8_are_listed_and_found(disk: LocalFileSystem, tmp_path: Path) -> None:
    """H-29: names are bytes; Python shows the undecodable ones as lone surrogates."""
    (tmp_path / os.fsdecode(b"caf\xe9")).write_bytes(b"1")
    assert [entry.name for entry in await disk.list_directory(tmp_path)] == ["caf\udce9"]
    assert await disk.walk_files(place(tmp_path, "")) == (PurePosixPath("caf\udce9"),)
    outgoing = await disk.open_outgoing(place(tmp_path, "caf\udce9"))
    assert outgoing is not None
    await outgoing.close()


async def test_no_operation_leaks_a_descriptor(disk: LocalFileSystem, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "d" / "e").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    before = open_descriptors()
    for relative in ("d/e/f", "d/e", "out/x", "", "d/e/f/g", "n" * 256, "nul\0"):
        for number in range(3):
            try:
                incoming = await disk.open_incoming(place(root, relative))
                await incoming.write(b"x")
                await (incoming.publish() if number else incoming.discard())
            except WorkerError:
                pass
            try:
                outgoing = await disk.open_outgoing(place(root, relative))
                if outgoing is not None:
                    await outgoing.close()
                await disk.walk_files(place(root, relative))
                await disk.locate(place(root, relative))
            except (PathEscapes, FileUnreadable):
                pass
    await disk.walk_files(place(root, ""))
    assert open_descriptors() == before


async def test_an_old_tree_that_cannot_be_removed_is_reported_and_the_new_one_stays(
    disk: LocalFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path) -> None:
        raise FileUnwritable(path, "busy")

    (tmp_path / "backend").mkdir()
    tree = await disk.private_directory(tmp_path / "backend")
    (tree / "run.sh").touch()
    monkeypatch.setattr(trees, "remove_tree", fail)
    await disk.replace_directory(tree, tmp_path / "backend")
    assert names_in(tmp_path / "backend") == ["run.sh"]
    assert "left behind" in caplog.text


async def test_a_tree_nested_too_deeply_is_refused_in_our_own_terms(
    disk: LocalFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_deep(path: Path) -> None:
        raise RecursionError

    (tmp_path / "tree").mkdir()
    monkeypatch.setattr(shutil, "rmtree", too_deep)
    with pytest.raises(FileUnwritable, match="nested too deeply"):
        await disk.remove_tree(tmp_path / "tree")


@pytest.fixture(scope="module")
def maze(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root full of links: inwards, outwards, dangling, in circles, by way of each other."""
    top = tmp_path_factory.mktemp("maze")
    root, outside = top / "root", top / "outside"
    (root / "d" / "e").mkdir(parents=True)
    outside.mkdir()
    (outside / "f").write_bytes(b"theirs")
    (root / "d" / "f").write_bytes(b"ours")
    for name, target in {
        "in": "d", "up": "..", "out": "../outside", "abs": str(outside), "gone": "../outside/new",
        "self": "self", "deep": "d/e/../../../outside", "back": "../root/d", "twice": "out/f",
        "hop": "back/e",
    }.items():  # fmt: skip
        (root / name).symlink_to(target)
        (root / "d" / name).symlink_to(target)
    return top


MAZE_PARTS = st.sampled_from(
    ["in", "up", "out", "abs", "gone", "self", "deep", "back", "twice", "hop", "d", "e", "f", "root", "new"]
)


@given(parts=st.lists(MAZE_PARTS, min_size=1, max_size=6))
def test_no_walk_through_links_touches_anything_outside(maze: Path, parts: list[str]) -> None:
    """H-8"""
    inside = place(maze / "root", "/".join(parts))
    try:
        directory, name = beneath.resolve_entry(inside)
        descriptor = beneath.open_directory(directory)
    except (PathEscapes, OSError):
        return
    try:
        real = Path(f"/proc/self/fd/{descriptor}").readlink()
    finally:
        os.close(descriptor)
    assert real.is_relative_to(maze / "root")
    assert name == parts[-1]


@pytest.mark.parametrize("same_process", [True, False])
async def test_what_was_hashed_before_is_not_read_again_and_what_was_not_is_read_once(
    disk: LocalFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_process: bool
) -> None:
    """H-5: newer reads the whole file again at the end, and at every piece."""
    content = os.urandom(9 * MIB)
    sha256 = hashlib.sha256(content).hexdigest()
    read_bytes = 0
    pread = os.pread

    def note(descriptor: int, count: int, offset: int) -> bytes:
        nonlocal read_bytes
        read_bytes += count
        return pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", note)
    for start in range(0, 9 * MIB, 3 * MIB):
        filesystem = disk if same_process else LocalFileSystem()
        partial = await filesystem.open_partial(place(tmp_path), sha256=sha256, total_bytes=9 * MIB)
        assert partial.size_bytes == start
        for at in range(start, start + 3 * MIB, MIB):
            await partial.write(content[at : at + MIB])
        if start < 6 * MIB:
            await partial.keep()
    assert await partial.sha256() == sha256
    await partial.publish()
    # Others hash what was there, and what came meanwhile, 4 MiB at each write: 4, and then 8 of them.
    assert read_bytes == (0 if same_process else 12 * MIB)
