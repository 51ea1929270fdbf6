"""Every `FileSystem` keeps these promises: the in-memory one and the machine's own."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
from anyio import create_task_group

from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain.errors import FileUnreadable, FileUnwritable, NoSpace, PathEscapes
from localai_worker.domain.ports.filesystem import (
    DirectoryEntry,
    FileKind,
    FileSystem,
    OutgoingFile,
    RootedPath,
)

MIB = 1024 * 1024


@dataclass
class Case:
    """A file system, an existing empty directory on it, and ways to set a scene behind its back."""

    filesystem: FileSystem
    top: Path
    put: Callable[[Path, bytes], None]
    link: Callable[[Path, Path], None]
    forbid: Callable[[Path], None]  # takes every permission from a path

    def place(self, relative: str) -> RootedPath:
        return RootedPath(self.top / "root", PurePosixPath(relative))

    async def content(self, path: Path) -> bytes:
        return await self.filesystem.read(path, limit_bytes=100 * MIB)

    async def names(self, path: Path) -> list[str]:
        return [entry.name for entry in await self.filesystem.list_directory(path)]


@pytest.fixture(params=["memory", "local"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    if request.param == "memory":
        memory = InMemoryFileSystem()
        memory.put(tmp_path / "root" / ".keep", b"")
        return Case(memory, tmp_path, memory.put, memory.link, lambda path: memory.chmod(path, 0))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / ".keep").touch()
    return Case(LocalFileSystem(), tmp_path, put_on_disk, link_on_disk, lambda path: path.chmod(0))


def put_on_disk(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def link_on_disk(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def permissions_bind(case: Case) -> bool:
    return not isinstance(case.filesystem, LocalFileSystem) or os.geteuid() != 0


async def receive(case: Case, relative: str, content: bytes) -> None:
    incoming = await case.filesystem.open_incoming(case.place(relative))
    await incoming.write(content)
    await incoming.publish()


async def read_all(outgoing: OutgoingFile | None) -> bytes:
    assert outgoing is not None
    try:
        return b"".join([chunk async for chunk in outgoing.chunks()])
    finally:
        await outgoing.close()


# stat


async def test_stat_follows_links_and_tells_kind_size_time_and_inode(case: Case) -> None:
    case.put(case.top / "file", b"12345")
    case.link(case.top / "link", case.top / "file")
    direct = await case.filesystem.stat(case.top / "file")
    assert direct is not None
    assert (direct.kind, direct.size_bytes) == (FileKind.FILE, 5)
    assert direct.modified_ns > 0
    assert await case.filesystem.stat(case.top / "link") == direct
    directory = await case.filesystem.stat(case.top)
    assert directory is not None
    assert directory.kind is FileKind.DIRECTORY


@pytest.mark.parametrize(
    "name", ["absent", "file/below", "dangling", "circle", "nul\0", "lone\ud800", "n" * 256]
)
async def test_stat_is_none_where_nothing_is(case: Case, name: str) -> None:
    case.put(case.top / "file", b"")
    case.link(case.top / "dangling", Path("nowhere"))
    case.link(case.top / "circle", Path("circle"))
    assert await case.filesystem.stat(case.top / name) is None


async def test_an_inode_stays_with_a_directory_across_renames(case: Case) -> None:
    tree = await case.filesystem.private_directory(case.top / "backend")
    before = await case.filesystem.stat(tree)
    await case.filesystem.replace_directory(tree, case.top / "backend")
    after = await case.filesystem.stat(case.top / "backend")
    assert before is not None
    assert after is not None
    assert before.inode == after.inode


# list_directory


async def test_a_listing_is_sorted_and_tells_links_from_what_they_point_to(case: Case) -> None:
    case.put(case.top / "d" / "b" / "x", b"")
    case.put(case.top / "d" / "a", b"")
    case.link(case.top / "d" / "to-directory", Path("b"))
    case.link(case.top / "d" / "to-file", case.top / "d" / "a")
    case.link(case.top / "d" / "to-nothing", Path("gone"))
    assert await case.filesystem.list_directory(case.top / "d") == (
        DirectoryEntry("a", FileKind.FILE, is_link=False),
        DirectoryEntry("b", FileKind.DIRECTORY, is_link=False),
        DirectoryEntry("to-directory", FileKind.DIRECTORY, is_link=True),
        DirectoryEntry("to-file", FileKind.FILE, is_link=True),
        DirectoryEntry("to-nothing", FileKind.OTHER, is_link=True),
    )


@pytest.mark.parametrize("name", ["absent", "file", "nul\0"])
async def test_listing_what_is_no_directory_raises(case: Case, name: str) -> None:
    case.put(case.top / "file", b"")
    with pytest.raises(FileUnreadable) as caught:
        await case.filesystem.list_directory(case.top / name)
    assert caught.value.path == case.top / name


async def test_what_is_not_ours_to_read_is_unreadable(case: Case) -> None:
    if not permissions_bind(case):
        pytest.skip("root may read everything")
    case.put(case.top / "root" / "d" / "file", b"x")
    case.forbid(case.top / "root" / "d" / "file")
    with pytest.raises(FileUnreadable):
        await case.filesystem.read(case.top / "root" / "d" / "file", limit_bytes=10)
    with pytest.raises(FileUnreadable):
        await case.filesystem.open_outgoing(case.place("d/file"))
    case.forbid(case.top / "root" / "d")
    with pytest.raises(FileUnreadable):
        await case.filesystem.list_directory(case.top / "root" / "d")


# make_directory


async def test_make_directory_makes_parents_and_one_that_exists_is_fine(case: Case) -> None:
    await case.filesystem.make_directory(case.top / "a" / "b" / "c")
    case.put(case.top / "a" / "b" / "c" / "kept", b"1")
    await case.filesystem.make_directory(case.top / "a" / "b" / "c")
    assert await case.content(case.top / "a" / "b" / "c" / "kept") == b"1"


async def test_make_directory_through_a_link_to_a_directory_is_fine(case: Case) -> None:
    case.put(case.top / "real" / "x", b"")
    case.link(case.top / "link", case.top / "real")
    await case.filesystem.make_directory(case.top / "link" / "new")
    assert await case.names(case.top / "real") == ["new", "x"]


@pytest.mark.parametrize(
    "name", ["file", "file/below", "dangling", "dangling/below", "nul\0", "lone\ud800", "n" * 256]
)
async def test_make_directory_raises_where_something_stands_in_the_way(case: Case, name: str) -> None:
    case.put(case.top / "file", b"kept")
    case.link(case.top / "dangling", case.top / "nowhere")
    with pytest.raises(FileUnwritable):
        await case.filesystem.make_directory(case.top / name)
    assert await case.content(case.top / "file") == b"kept"
    assert await case.filesystem.stat(case.top / "nowhere") is None


# read and write


async def test_read_gives_a_file_up_to_its_limit(case: Case) -> None:
    case.put(case.top / "file", b"12345")
    assert await case.filesystem.read(case.top / "file", limit_bytes=5) == b"12345"
    with pytest.raises(FileUnreadable, match="4 bytes"):
        await case.filesystem.read(case.top / "file", limit_bytes=4)


@pytest.mark.parametrize("name", ["absent", "directory", "file/below", "dangling"])
async def test_reading_what_is_no_file_raises(case: Case, name: str) -> None:
    case.put(case.top / "file", b"")
    case.link(case.top / "dangling", Path("nowhere"))
    await case.filesystem.make_directory(case.top / "directory")
    with pytest.raises(FileUnreadable) as caught:
        await case.filesystem.read(case.top / name, limit_bytes=10)
    assert caught.value.path == case.top / name


async def test_write_replaces_a_file_whole_and_leaves_nothing_else(case: Case) -> None:
    await case.filesystem.write(case.top / "d.json", b"a long first version")
    await case.filesystem.write(case.top / "d.json", b"second")
    assert await case.content(case.top / "d.json") == b"second"
    assert await case.names(case.top) == ["d.json", "root"]


async def test_write_replaces_a_link_and_not_what_it_points_to(case: Case) -> None:
    case.put(case.top / "shared", b"theirs")
    case.link(case.top / "mine", case.top / "shared")
    await case.filesystem.write(case.top / "mine", b"mine")
    assert await case.content(case.top / "shared") == b"theirs"
    assert await case.content(case.top / "mine") == b"mine"


@pytest.mark.parametrize("name", ["directory", "absent/file", "file/below", "nul\0", "n" * 256])
async def test_write_where_no_file_can_be_raises_and_changes_nothing(case: Case, name: str) -> None:
    case.put(case.top / "file", b"kept")
    case.put(case.top / "directory" / "inside", b"kept")
    with pytest.raises(FileUnwritable) as caught:
        await case.filesystem.write(case.top / name, b"new")
    assert caught.value.path == case.top / name
    assert await case.names(case.top) == ["directory", "file", "root"]
    assert await case.content(case.top / "directory" / "inside") == b"kept"


# private_directory, replace_directory, remove_tree


async def test_a_private_directory_is_empty_hidden_unique_and_beside(case: Case) -> None:
    first = await case.filesystem.private_directory(case.top / "backend")
    second = await case.filesystem.private_directory(case.top / "backend")
    assert first != second
    assert first.parent == second.parent == case.top
    assert first.name.startswith(".")
    assert await case.names(first) == []


async def test_a_private_directory_needs_the_one_it_lies_in(case: Case) -> None:
    with pytest.raises(FileUnwritable):
        await case.filesystem.private_directory(case.top / "absent" / "backend")


async def test_a_sweep_spares_what_is_being_built_and_finds_nothing_where_nothing_is(case: Case) -> None:
    tree = await case.filesystem.private_directory(case.top / "backend")
    assert await case.filesystem.sweep_private(case.top) == ()
    assert await case.filesystem.stat(tree) is not None
    assert await case.filesystem.sweep_private(case.top / "absent") == ()


async def test_a_sweep_removes_what_others_left_and_puts_back_what_lost_its_place(case: Case) -> None:
    left = (".backend.1.incoming", ".gone.1.replaced", ".there.1.replaced")
    for name in (*left, "there"):
        await case.filesystem.make_directory(case.top / name)
        await case.filesystem.write(case.top / name / "run.sh", name.encode())
    assert await case.filesystem.sweep_private(case.top) == tuple(case.top / name for name in left)
    assert await case.filesystem.read(case.top / "gone/run.sh", limit_bytes=99) == b".gone.1.replaced"
    assert await case.filesystem.read(case.top / "there/run.sh", limit_bytes=99) == b"there"
    for name in left:
        assert await case.filesystem.stat(case.top / name) is None


async def test_replace_directory_swaps_a_whole_tree_and_removes_the_old(case: Case) -> None:
    case.put(case.top / "backend" / "old" / "deep", b"1")
    tree = await case.filesystem.private_directory(case.top / "backend")
    case.put(tree / "run.sh", b"2")
    await case.filesystem.replace_directory(tree, case.top / "backend")
    assert await case.names(case.top / "backend") == ["run.sh"]
    assert await case.names(case.top) == ["backend", "root"]


async def test_replace_directory_puts_a_tree_where_nothing_was(case: Case) -> None:
    tree = await case.filesystem.private_directory(case.top / "backend")
    await case.filesystem.replace_directory(tree, case.top / "backend")
    assert await case.names(case.top) == ["backend", "root"]


async def test_replace_directory_replaces_a_link_and_not_what_it_points_to(case: Case) -> None:
    case.put(case.top / "shared" / "file", b"theirs")
    case.link(case.top / "backend", case.top / "shared")
    tree = await case.filesystem.private_directory(case.top / "backend")
    await case.filesystem.replace_directory(tree, case.top / "backend")
    assert await case.content(case.top / "shared" / "file") == b"theirs"
    assert await case.names(case.top / "backend") == []


async def test_replace_directory_without_a_new_tree_leaves_the_old(case: Case) -> None:
    case.put(case.top / "backend" / "run.sh", b"1")
    with pytest.raises(FileUnwritable):
        await case.filesystem.replace_directory(case.top / "absent", case.top / "backend")
    assert await case.content(case.top / "backend" / "run.sh") == b"1"


async def test_replace_directory_puts_the_old_tree_back_when_the_last_rename_fails(case: Case) -> None:
    case.put(case.top / "outer" / "backend" / "run.sh", b"1")
    with pytest.raises(FileUnwritable):  # no directory can move into itself
        await case.filesystem.replace_directory(case.top / "outer", case.top / "outer" / "backend")
    assert await case.content(case.top / "outer" / "backend" / "run.sh") == b"1"
    assert await case.names(case.top / "outer") == ["backend"]


async def test_remove_tree_takes_files_directories_and_links_but_not_their_targets(case: Case) -> None:
    case.put(case.top / "kept" / "file", b"1")
    case.put(case.top / "tree" / "a" / "b", b"")
    case.link(case.top / "tree" / "a" / "out", case.top / "kept")
    case.put(case.top / "file", b"")
    case.link(case.top / "link", case.top / "kept")
    case.link(case.top / "dangling", Path("nowhere"))
    for name in ("tree", "file", "link", "dangling", "absent", "absent/below"):
        await case.filesystem.remove_tree(case.top / name)
    assert await case.names(case.top) == ["kept", "root"]
    assert await case.content(case.top / "kept" / "file") == b"1"


async def test_remove_tree_says_so_when_something_cannot_be_removed(case: Case) -> None:
    if not permissions_bind(case):
        pytest.skip("root may remove everything")
    case.put(case.top / "tree" / "locked" / "file", b"1")
    case.forbid(case.top / "tree" / "locked")
    with pytest.raises(FileUnwritable):
        await case.filesystem.remove_tree(case.top / "tree")


# space


async def test_space_is_that_of_the_nearest_existing_ancestor(case: Case) -> None:
    here = await case.filesystem.space(case.top)
    below = await case.filesystem.space(case.top / "absent" / "deeper")
    assert here is not None
    assert below is not None
    assert 0 < here.available_bytes <= here.total_bytes == below.total_bytes


# places below a root


async def test_locate_tells_what_stat_tells(case: Case) -> None:
    case.put(case.top / "root" / "a" / "file", b"123")
    assert await case.filesystem.locate(case.place("a/file")) == await case.filesystem.stat(
        case.top / "root" / "a" / "file"
    )
    directory = await case.filesystem.locate(case.place("a"))
    assert directory is not None
    assert directory.kind is FileKind.DIRECTORY
    assert await case.filesystem.locate(case.place("")) is not None


@pytest.mark.parametrize("relative", ["absent", "absent/below", "file/below", "dangling", "circle", "nul\0"])
async def test_locate_is_none_where_nothing_is(case: Case, relative: str) -> None:
    case.put(case.top / "root" / "file", b"")
    case.link(case.top / "root" / "dangling", Path("nowhere"))
    case.link(case.top / "root" / "circle", Path("circle"))
    assert await case.filesystem.locate(case.place(relative)) is None
    assert await case.filesystem.open_outgoing(case.place(relative)) is None
    assert await case.filesystem.walk_files(case.place(relative)) is None


async def test_a_root_that_is_missing_holds_nothing_and_is_made_for_an_incoming_file(case: Case) -> None:
    """H-9: a base directory that vanished is made again."""
    place = RootedPath(case.top / "gone" / "models", PurePosixPath("m/file"))
    assert await case.filesystem.locate(place) is None
    assert await case.filesystem.open_outgoing(place) is None
    assert await case.filesystem.walk_files(place) is None
    incoming = await case.filesystem.open_incoming(place)
    await incoming.publish()
    assert await case.content(place.path) == b""


async def test_a_root_that_is_itself_a_link_is_fine(case: Case) -> None:
    case.link(case.top / "alias", case.top / "root")
    place = RootedPath(case.top / "alias", PurePosixPath("m/file"))
    incoming = await case.filesystem.open_incoming(place)
    await incoming.write(b"1")
    await incoming.publish()
    assert await case.content(case.top / "root" / "m" / "file") == b"1"
    assert await read_all(await case.filesystem.open_outgoing(place)) == b"1"
    top = RootedPath(case.top / "alias", PurePosixPath())
    assert await case.filesystem.walk_files(top) == (PurePosixPath(".keep"), PurePosixPath("m/file"))


async def test_a_link_that_stays_inside_is_followed(case: Case) -> None:
    case.put(case.top / "root" / "real" / "file", b"1")
    case.link(case.top / "root" / "relative", Path("real"))
    case.link(case.top / "root" / "absolute", case.top / "root" / "real")
    case.link(case.top / "root" / "roundabout", Path("../root/real"))
    for name in ("relative", "absolute", "roundabout"):
        assert await read_all(await case.filesystem.open_outgoing(case.place(f"{name}/file"))) == b"1"
        await receive(case, f"{name}/{name}", b"2")
        assert await case.content(case.top / "root" / "real" / name) == b"2"


ESCAPES = [
    "out",
    "out/file",
    "out/new",
    "out-relative/file",
    "dangling-out",
    "dangling-out/new",
    "chain/file",
]


@pytest.mark.parametrize("relative", ESCAPES)
async def test_a_link_that_leads_out_of_the_root_is_refused_also_when_it_dangles(
    case: Case, relative: str
) -> None:
    """H-8: upstream creates the target of a dangling link, wherever that is."""
    case.put(case.top / "outside" / "file", b"theirs")
    case.link(case.top / "root" / "out", case.top / "outside")
    case.link(case.top / "root" / "out-relative", Path("../outside"))
    case.link(case.top / "root" / "dangling-out", case.top / "outside" / "not-yet")
    case.link(case.top / "root" / "chain", Path("out"))
    place = case.place(relative)
    with pytest.raises(PathEscapes) as caught:
        await case.filesystem.locate(place)
    assert str(caught.value).startswith(f'path "{place.path}" is outside allowed directory')
    with pytest.raises(PathEscapes):
        await case.filesystem.open_outgoing(place)
    with pytest.raises(PathEscapes):
        await case.filesystem.open_incoming(place)
    with pytest.raises(PathEscapes):
        await case.filesystem.walk_files(place)
    assert await case.names(case.top / "outside") == ["file"]
    assert await case.content(case.top / "outside" / "file") == b"theirs"


# open_incoming


async def test_an_incoming_file_counts_and_hashes_what_was_written_so_far(case: Case) -> None:
    incoming = await case.filesystem.open_incoming(case.place("file"))
    content = b""
    for chunk in (b"", b"small", b"b" * (MIB + 1), b"tail", b"c" * (3 * MIB)):
        await incoming.write(chunk)
        content += chunk
        assert incoming.size_bytes == len(content)
        assert await incoming.sha256() == hashlib.sha256(content).hexdigest()
    published = await incoming.publish()
    assert published == await case.filesystem.locate(case.place("file"))
    assert await case.content(case.top / "root" / "file") == content
    assert incoming.size_bytes == len(content)
    assert await incoming.sha256() == hashlib.sha256(content).hexdigest()


async def test_nobody_sees_an_incoming_file_before_it_is_published(case: Case) -> None:
    """H-1: upstream truncates the live file first."""
    case.put(case.top / "root" / "m" / "file", b"old")
    incoming = await case.filesystem.open_incoming(case.place("m/file"))
    await incoming.write(b"n" * (2 * MIB))
    assert await case.content(case.top / "root" / "m" / "file") == b"old"
    hidden = [name for name in await case.names(case.top / "root" / "m") if name != "file"]
    assert all(name.startswith(".file.") and name.endswith(".incoming") for name in hidden)
    await incoming.publish()
    assert await case.content(case.top / "root" / "m" / "file") == b"n" * (2 * MIB)
    assert await case.names(case.top / "root" / "m") == ["file"]


async def test_a_discarded_file_leaves_nothing_and_the_old_one_as_it_was(case: Case) -> None:
    case.put(case.top / "root" / "file", b"old")
    before = await case.filesystem.stat(case.top / "root" / "file")
    incoming = await case.filesystem.open_incoming(case.place("file"))
    await incoming.write(b"n" * (2 * MIB))
    await incoming.discard()
    await incoming.discard()
    assert await case.filesystem.stat(case.top / "root" / "file") == before
    assert await case.names(case.top / "root") == [".keep", "file"]


@pytest.mark.parametrize("left", ["nothing", "part", "note"])
async def test_an_incoming_file_tells_of_parts_of_an_earlier_upload(case: Case, left: str) -> None:
    if left == "part":
        partial = await case.filesystem.open_partial(case.place("m/file"), sha256="", total_bytes=9)
        await partial.write(b"1")
        await partial.keep()
    elif left == "note":
        case.put(case.top / "root" / "m" / "file.sha256.target", b"0" * 64)
    incoming = await case.filesystem.open_incoming(case.place("m/file"))
    assert incoming.has_leftovers == (left != "nothing")
    await incoming.discard()


async def test_discard_after_publish_changes_nothing(case: Case) -> None:
    incoming = await case.filesystem.open_incoming(case.place("file"))
    await incoming.write(b"new")
    await incoming.publish()
    await incoming.discard()
    assert await case.content(case.top / "root" / "file") == b"new"


@pytest.mark.parametrize("end", ["publish", "discard"])
async def test_writing_or_publishing_after_the_end_is_a_bug_and_says_so(case: Case, end: str) -> None:
    incoming = await case.filesystem.open_incoming(case.place("file"))
    await (incoming.publish() if end == "publish" else incoming.discard())
    with pytest.raises(RuntimeError):
        await incoming.write(b"x" * (2 * MIB))
    with pytest.raises(RuntimeError):
        await incoming.publish()


async def test_an_incoming_file_replaces_a_link_and_not_what_it_points_to(case: Case) -> None:
    case.put(case.top / "root" / "blobs" / "1", b"shared by others")
    case.link(case.top / "root" / "model", Path("blobs/1"))
    await receive(case, "model", b"new")
    assert await case.content(case.top / "root" / "model") == b"new"
    assert await case.content(case.top / "root" / "blobs" / "1") == b"shared by others"


async def test_a_published_file_is_newer_than_anything_written_before_it_appeared(case: Case) -> None:
    """H-6: a hash kept beside the old file must never look as if it were the new one's."""
    incoming = await case.filesystem.open_incoming(case.place("file"))
    await incoming.write(b"x" * (2 * MIB))
    await case.filesystem.write(case.top / "root" / "file.sha256", b"meanwhile")
    await incoming.publish()
    sidecar = await case.filesystem.stat(case.top / "root" / "file.sha256")
    published = await case.filesystem.stat(case.top / "root" / "file")
    assert sidecar is not None
    assert published is not None
    assert published.modified_ns >= sidecar.modified_ns


async def test_files_coming_in_for_one_place_do_not_mix_and_the_last_published_stays(case: Case) -> None:
    """S-K12: upstream's concurrent uploads of one key interleave."""
    contents = [bytes([number]) * (MIB + number) for number in range(5)]
    published: list[bytes] = []

    async def send(content: bytes) -> None:
        incoming = await case.filesystem.open_incoming(case.place("m/file"))
        for start in range(0, len(content), 100_000):
            await incoming.write(content[start : start + 100_000])
        await incoming.publish()
        published.append(content)

    async with create_task_group() as tasks:
        for content in contents:
            tasks.start_soon(send, content)
    assert await case.content(case.top / "root" / "m" / "file") in published
    assert await case.names(case.top / "root" / "m") == ["file"]


@pytest.mark.parametrize("relative", ["", "directory", "link-to-directory", "file/below", "nul\0", "n" * 256])
async def test_no_file_can_come_in_where_something_stands_in_the_way(case: Case, relative: str) -> None:
    case.put(case.top / "root" / "file", b"kept")
    case.put(case.top / "root" / "directory" / "file", b"kept")
    case.link(case.top / "root" / "link-to-directory", Path("directory"))
    with pytest.raises(FileUnwritable):
        await case.filesystem.open_incoming(case.place(relative))
    assert await case.content(case.top / "root" / "file") == b"kept"
    assert await case.names(case.top / "root") == [".keep", "directory", "file", "link-to-directory"]


async def test_publishing_over_a_directory_that_came_meanwhile_raises_and_leaves_it(case: Case) -> None:
    incoming = await case.filesystem.open_incoming(case.place("m"))
    case.put(case.top / "root" / "m" / "file", b"kept")
    with pytest.raises(FileUnwritable):
        await incoming.publish()
    await incoming.discard()
    assert await case.content(case.top / "root" / "m" / "file") == b"kept"
    assert await case.names(case.top / "root") == [".keep", "m"]


async def test_publishing_into_a_directory_removed_meanwhile_raises(case: Case) -> None:
    incoming = await case.filesystem.open_incoming(case.place("m/file"))
    await case.filesystem.remove_tree(case.top / "root" / "m")
    with pytest.raises(FileUnwritable):
        await incoming.publish()
    assert await case.names(case.top / "root") == [".keep"]


async def test_a_name_of_255_bytes_can_come_in(case: Case) -> None:
    name = "é" * 127 + "x"
    await receive(case, name, b"1")
    assert await case.content(case.top / "root" / name) == b"1"
    assert await case.names(case.top / "root") == [".keep", name]


# open_outgoing


async def test_an_outgoing_file_comes_in_chunks_of_up_to_1_mib(case: Case) -> None:
    content = os.urandom(2 * MIB + 5)
    case.put(case.top / "root" / "file", content)
    outgoing = await case.filesystem.open_outgoing(case.place("file"))
    assert outgoing is not None
    assert outgoing.size_bytes == len(content)
    chunks = [chunk async for chunk in outgoing.chunks()]
    for start, count in ((0, 0), (0, 1), (7, MIB + 3), (2 * MIB, 5), (len(content), 0)):
        part = b"".join([chunk async for chunk in outgoing.chunks(start, count)])
        assert part == content[start : start + count]
    if outgoing.descriptor is not None:
        assert os.pread(outgoing.descriptor, 10, 3) == content[3:13]
    await outgoing.close()
    assert outgoing.descriptor is None
    assert b"".join(chunks) == content
    assert all(0 < len(chunk) <= MIB for chunk in chunks)


async def test_an_outgoing_file_stays_readable_whatever_happens_to_its_name(case: Case) -> None:
    case.put(case.top / "root" / "file", b"old")
    outgoing = await case.filesystem.open_outgoing(case.place("file"))
    await receive(case, "file", b"new and longer")
    await case.filesystem.remove_tree(case.top / "root" / "file")
    assert await read_all(outgoing) == b"old"


@pytest.mark.parametrize("size", [0, 1, 3 * MIB + 7])
async def test_an_outgoing_file_knows_its_hash(case: Case, size: int) -> None:
    content = os.urandom(size)
    case.put(case.top / "root" / "file", content)
    outgoing = await case.filesystem.open_outgoing(case.place("file"))
    assert outgoing is not None
    assert await outgoing.sha256() == hashlib.sha256(content).hexdigest()
    assert await outgoing.sha256() == hashlib.sha256(content).hexdigest()
    await outgoing.close()


async def test_closing_an_outgoing_file_twice_is_fine(case: Case) -> None:
    case.put(case.top / "root" / "file", b"1")
    outgoing = await case.filesystem.open_outgoing(case.place("file"))
    assert outgoing is not None
    await outgoing.close()
    await outgoing.close()


@pytest.mark.parametrize("relative", ["", "directory"])
async def test_a_directory_cannot_go_out(case: Case, relative: str) -> None:
    """H-13: upstream serves a directory as an empty file."""
    await case.filesystem.make_directory(case.top / "root" / "directory")
    with pytest.raises(FileUnreadable):
        await case.filesystem.open_outgoing(case.place(relative))


# share


async def test_a_shared_file_has_two_names_that_live_for_themselves(case: Case) -> None:
    case.put(case.place("a").path, b"content")
    await case.filesystem.share(case.place("a"), case.place("deep/er/b"))
    assert await case.content(case.place("deep/er/b").path) == b"content"
    first, second = (
        await case.filesystem.locate(case.place("a")),
        await case.filesystem.locate(case.place("deep/er/b")),
    )
    assert first is not None
    assert second is not None
    assert first.inode == second.inode
    incoming = await case.filesystem.open_incoming(case.place("deep/er/b"))
    await incoming.write(b"new")
    await incoming.publish()
    assert await case.content(case.place("a").path) == b"content"
    await case.filesystem.remove_file(case.place("a"))
    assert await case.content(case.place("deep/er/b").path) == b"new"


async def test_what_is_there_already_is_not_replaced_by_sharing(case: Case) -> None:
    case.put(case.place("a").path, b"a")
    case.put(case.place("b").path, b"b")
    await case.filesystem.share(case.place("a"), case.place("b"))
    assert await case.content(case.place("b").path) == b"b"


async def test_only_regular_files_are_shared_and_nothing_leaves_the_root(case: Case) -> None:
    case.put(case.place("d/file").path, b"x")
    case.put(case.top / "outside/file", b"x")
    case.link(case.place("out").path, case.top / "outside")
    for relative in ("d", "missing"):
        with pytest.raises(FileUnwritable):
            await case.filesystem.share(case.place(relative), case.place("b"))
    for source, target in (("out/file", "b"), ("d/file", "out/b")):
        with pytest.raises(PathEscapes):
            await case.filesystem.share(case.place(source), case.place(target))


# write_note


async def test_a_note_is_written_whole_over_the_old_one(case: Case) -> None:
    case.put(case.top / "root" / "d" / "note", b"old and longer")
    case.put(case.top / "root" / "shared", b"theirs")
    case.link(case.top / "root" / "d" / "link", case.top / "root" / "shared")
    for name in ("note", "link", "new"):
        await case.filesystem.write_note(case.place(f"d/{name}"), b"text", mode=0o640)
        assert await case.content(case.top / "root" / "d" / name) == b"text"
    assert await case.names(case.top / "root" / "d") == ["link", "new", "note"]


async def test_a_note_that_cannot_be_written_leaves_everything(case: Case) -> None:
    case.put(case.top / "root" / "d" / "file", b"1")
    case.link(case.top / "root" / "out", case.top / "outside")
    case.put(case.top / "outside" / "file", b"theirs")
    for relative in ("d", "absent/note", "d/file/note"):
        with pytest.raises(FileUnwritable):
            await case.filesystem.write_note(case.place(relative), b"text")
    with pytest.raises(PathEscapes):
        await case.filesystem.write_note(case.place("out/file"), b"text")
    assert await case.content(case.top / "outside" / "file") == b"theirs"
    assert await case.names(case.top / "root" / "d") == ["file"]


# remove_file


async def test_remove_file_takes_a_file_or_a_link_and_not_what_it_points_to(case: Case) -> None:
    case.put(case.top / "root" / "d" / "file", b"1")
    case.put(case.top / "root" / "kept", b"2")
    case.link(case.top / "root" / "d" / "link", case.top / "root" / "kept")
    case.link(case.top / "root" / "d" / "out", case.top / "outside")
    for name in ("file", "link", "out", "absent", "file/below", "absent/below", "nul\0", "n" * 256):
        await case.filesystem.remove_file(case.place(f"d/{name}"))
    assert await case.names(case.top / "root" / "d") == []
    assert await case.content(case.top / "root" / "kept") == b"2"


async def test_remove_file_takes_no_directory_and_leaves_the_root_by_no_link(case: Case) -> None:
    case.put(case.top / "outside" / "file", b"theirs")
    case.put(case.top / "root" / "d" / "file", b"1")
    case.link(case.top / "root" / "out", case.top / "outside")
    for relative in ("", "d"):
        with pytest.raises(FileUnwritable):
            await case.filesystem.remove_file(case.place(relative))
    with pytest.raises(PathEscapes):
        await case.filesystem.remove_file(case.place("out/file"))
    assert await case.content(case.top / "outside" / "file") == b"theirs"
    assert await case.content(case.top / "root" / "d" / "file") == b"1"


# create_empty


async def test_create_empty_makes_a_file_of_a_unique_name(case: Case) -> None:
    paths = {await case.filesystem.create_empty(case.top, prefix="output-", suffix=".tmp") for _ in range(20)}
    assert len(paths) == 20
    for path in paths:
        assert path.parent == case.top
        assert path.name.startswith("output-")
        assert path.name.endswith(".tmp")
        assert await case.content(path) == b""


async def test_create_empty_needs_its_directory(case: Case) -> None:
    with pytest.raises(FileUnwritable):
        await case.filesystem.create_empty(case.top / "absent", prefix="output-", suffix=".tmp")


# walk_files


async def test_walk_files_goes_directory_by_directory_and_lists_links_without_following(case: Case) -> None:
    for name in ("a.txt", "a/z", "a/b/c", "b", "a-", "B"):
        case.put(case.top / "root" / "top" / name, b"")
    case.link(case.top / "root" / "top" / "a" / "link", case.top / "root")
    case.link(case.top / "root" / "top" / "dangling", Path("nowhere"))
    await case.filesystem.make_directory(case.top / "root" / "top" / "empty")
    found = await case.filesystem.walk_files(case.place("top"))
    assert found is not None
    assert [str(path) for path in found] == ["B", "a/b/c", "a/link", "a/z", "a-", "a.txt", "b", "dangling"]


async def test_walk_files_of_an_empty_directory_is_empty_and_of_a_file_none(case: Case) -> None:
    await case.filesystem.make_directory(case.top / "root" / "empty")
    assert await case.filesystem.walk_files(case.place("empty")) == ()
    assert await case.filesystem.walk_files(case.place(".keep")) is None


# a full disk; the local one runs full in tests/unit/test_local_filesystem.py


async def test_a_full_file_system_raises_no_space_and_keeps_what_it_has() -> None:
    top = Path("/models")
    filesystem = InMemoryFileSystem()
    filesystem.put(top / "file", b"old")
    filesystem.capacity_bytes = 10
    space = await filesystem.space(top)
    assert space is not None
    assert (space.total_bytes, space.available_bytes) == (10, 7)
    incoming = await filesystem.open_incoming(RootedPath(top, PurePosixPath("file")))
    await incoming.write(b"1234567")
    with pytest.raises(NoSpace):
        await incoming.write(b"8")
    with pytest.raises(NoSpace):
        await filesystem.write(top / "other", b"1")
    await incoming.discard()
    assert filesystem.get(top / "file") == b"old"
    assert filesystem.files() == [top / "file"]
    await filesystem.write(top / "other", b"1234567")
