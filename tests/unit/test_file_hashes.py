import hashlib
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

import pytest
from anyio import Event, create_task_group, wait_all_tasks_blocked

from localai_worker.adapters.memory.file_transfers import InMemoryOutgoingFile
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain import file_hashes
from localai_worker.domain.file_hashes import FileHashes, normal_sha256
from localai_worker.domain.ports.filesystem import FileStat, RootedPath

TOP = Path("/models")
FILE = RootedPath(TOP, PurePosixPath("m/x.gguf"))
SIDECAR = FILE.path.with_name("x.gguf.sha256")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class CountingFileSystem(InMemoryFileSystem):
    """Counts how often content is opened for reading, and can hold readers up at a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.gate = Event()
        self.gate.set()

    async def open_outgoing(self, place: RootedPath) -> InMemoryOutgoingFile | None:
        self.reads.append(place.relative.name)
        outgoing = await super().open_outgoing(place)
        return None if outgoing is None else Gated(outgoing, self.gate)


class Gated(InMemoryOutgoingFile):
    def __init__(self, outgoing: InMemoryOutgoingFile, gate: Event) -> None:
        super().__init__(outgoing._content)
        self._gate = gate

    async def chunks(self, start: int = 0, count: int | None = None) -> AsyncIterator[bytes]:
        await self._gate.wait()
        async for chunk in super().chunks():
            yield chunk

    async def sha256(self) -> str:
        await self._gate.wait()
        return await super().sha256()


@pytest.fixture
def disk() -> CountingFileSystem:
    return CountingFileSystem()


@pytest.fixture
def hashes(disk: CountingFileSystem) -> FileHashes:
    return FileHashes(disk)


async def stat_of(disk: InMemoryFileSystem, place: RootedPath = FILE) -> FileStat:
    stat = await disk.locate(place)
    assert stat is not None
    return stat


async def hash_of(disk: InMemoryFileSystem, hashes: FileHashes, place: RootedPath = FILE) -> str | None:
    return await hashes.of(place, await stat_of(disk, place))


async def publish(disk: InMemoryFileSystem, hashes: FileHashes, content: bytes) -> None:
    incoming = await disk.open_incoming(FILE)
    await incoming.write(content)
    await hashes.publish(FILE, incoming)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("ab" * 32, "ab" * 32),
        (" " + "AB" * 32 + "\r\n", "ab" * 32),
        ("ab" * 31, None),
        ("zz" * 32, None),
        ("", None),
        ("ab" * 32 + "  model.gguf", None),
    ],
)
def test_a_hash_is_64_hex_digits_of_either_case(text: str, read: str | None) -> None:
    assert normal_sha256(text) == read


async def test_a_file_is_hashed_once_and_a_plain_sidecar_written(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    """H-6, H-5d57c08c6, M-7.2: the next asker, and a Go worker on the same volume, need not read it again."""
    disk.put(FILE.path, b"content")
    for _ in range(3):
        assert await hash_of(disk, hashes) == sha256(b"content")
    assert disk.reads == ["x.gguf"]
    assert disk.get(SIDECAR) == sha256(b"content").encode()
    assert disk.mode_of(SIDECAR) == 0o640


async def test_a_large_file_hashes_to_the_same_off_the_event_loop(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    content = b"0123456789abcdef" * 200_000
    disk.put(FILE.path, content)
    assert await hash_of(disk, hashes) == sha256(content)


async def test_a_published_file_is_never_read_for_its_hash(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    await publish(disk, hashes, b"content")
    assert await hash_of(disk, hashes) == sha256(b"content")
    assert disk.reads == []
    assert disk.get(SIDECAR) == sha256(b"content").encode()


async def test_askers_at_the_same_time_share_one_reading(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    """H-6, S-K13: upstream hashes in parallel, once per request."""
    disk.put(FILE.path, b"content")
    disk.gate = Event()
    answers: list[str | None] = []

    async def ask() -> None:
        answers.append(await hash_of(disk, hashes))

    async with create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
        await wait_all_tasks_blocked()
        disk.gate.set()
    assert answers == [sha256(b"content")] * 5
    assert disk.reads == ["x.gguf"]


async def test_when_the_reader_is_cancelled_another_asker_takes_over(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    disk.put(FILE.path, b"content")
    disk.gate = Event()
    answers: list[str | None] = []

    async def ask() -> None:
        answers.append(await hash_of(disk, hashes))

    async with create_task_group() as outer:
        async with create_task_group() as first:
            first.start_soon(ask)
            await wait_all_tasks_blocked()
            outer.start_soon(ask)
            await wait_all_tasks_blocked()
            first.cancel_scope.cancel()
        disk.gate.set()
    assert answers == [sha256(b"content")]
    assert disk.reads == ["x.gguf", "x.gguf"]


async def test_the_sidecar_of_a_file_another_worker_wrote_is_trusted(disk: CountingFileSystem) -> None:
    disk.put(FILE.path, b"content")
    disk.put(SIDECAR, b"AB" * 32 + b"\n")  # not the true hash: only so can we see that it was used
    hashes = FileHashes(disk)
    assert await hash_of(disk, hashes) == "ab" * 32
    assert await hash_of(disk, hashes) == "ab" * 32
    assert disk.reads == ["x.gguf.sha256"]


async def test_a_sidecar_older_than_its_file_is_not_trusted(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    disk.put(SIDECAR, b"ab" * 32)
    disk.put(FILE.path, b"content")
    assert await hash_of(disk, hashes) == sha256(b"content")
    assert disk.get(SIDECAR) == sha256(b"content").encode()


@pytest.mark.parametrize("content", [b"", b"ab" * 31, b"zz" * 32, b"ab" * 100_000, b"\xff" * 64])
async def test_a_sidecar_that_holds_no_hash_is_not_trusted(
    disk: CountingFileSystem, hashes: FileHashes, content: bytes
) -> None:
    disk.put(FILE.path, b"content")
    disk.put(SIDECAR, content)
    assert await hash_of(disk, hashes) == sha256(b"content")


async def test_a_sidecar_that_links_out_of_the_root_is_neither_read_nor_written(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    disk.put(FILE.path, b"content")
    disk.put(Path("/outside"), b"ab" * 32)
    disk.link(SIDECAR, Path("/outside"))
    assert await hash_of(disk, hashes) == sha256(b"content")
    assert disk.get(Path("/outside")) == b"ab" * 32


async def test_a_sidecar_that_cannot_be_read_is_not_trusted(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    disk.put(FILE.path, b"content")
    disk.put(SIDECAR, b"ab" * 32, mode=0)
    assert await hash_of(disk, hashes) == sha256(b"content")


async def test_a_file_replaced_behind_our_back_is_hashed_anew_whatever_its_sidecar_says(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    """H-7: `cp -p` of other content keeps an old time, so the sidecar still looks newer."""
    await publish(disk, hashes, b"content")
    disk.put(FILE.path, b"changed")
    disk.put(SIDECAR, sha256(b"content").encode())
    assert await hash_of(disk, hashes) == sha256(b"changed")
    assert disk.get(SIDECAR) == sha256(b"changed").encode()


async def test_a_file_that_changes_while_it_is_hashed_has_no_hash_and_no_sidecar(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    """H-6: upstream may store the hash of what was there before."""
    disk.put(FILE.path, b"before")
    disk.gate = Event()
    answers: list[str | None] = []

    async def ask() -> None:
        answers.append(await hash_of(disk, hashes))

    async with create_task_group() as tasks:
        tasks.start_soon(ask)
        await wait_all_tasks_blocked()
        disk.put(FILE.path, b"after")
        disk.gate.set()
    assert answers == [None]
    assert disk.get(SIDECAR) is None
    assert await hash_of(disk, hashes) == sha256(b"after")


async def test_a_file_removed_while_it_is_hashed_has_no_hash(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    disk.put(FILE.path, b"content")
    stat = await stat_of(disk)
    await disk.remove_tree(FILE.path)
    assert await hashes.of(FILE, stat) is None


async def test_a_sidecar_has_a_hash_but_no_sidecar_of_its_own(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    """H-15, H-878a0d00a: upstream once grew chains of `.sha256.sha256...`."""
    place = RootedPath(TOP, PurePosixPath("x.sha256"))
    disk.put(place.path, b"ab" * 32)
    assert await hash_of(disk, hashes, place) == sha256(b"ab" * 32)
    assert disk.files() == [place.path]


async def test_a_sidecar_that_cannot_be_written_costs_nothing_but_time(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    disk.put(FILE.path, b"content")
    disk.put(SIDECAR / "in-the-way", b"")
    assert await hash_of(disk, hashes) == sha256(b"content")
    disk.capacity_bytes = 7
    assert await hash_of(disk, hashes) == sha256(b"content")
    assert disk.files() == [FILE.path, SIDECAR / "in-the-way"]


async def test_uploads_of_one_file_leave_the_sidecar_of_the_last(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    """H-6: the sidecar and the file always speak of the same content."""
    contents = [bytes([number]) * 10 for number in range(8)]
    async with create_task_group() as tasks:
        for content in contents:
            tasks.start_soon(publish, disk, hashes, content)
    stored = disk.get(FILE.path)
    assert stored in contents
    assert disk.get(SIDECAR) == sha256(stored).encode()
    assert await hash_of(disk, hashes) == sha256(stored)


async def test_a_hash_is_never_remembered_for_the_upload_that_came_right_after() -> None:
    """H-6: between publishing a file and writing its hash another upload must not slip in."""
    held_up, go_on = Event(), Event()

    class Slow(InMemoryFileSystem):
        async def write_note(self, place: RootedPath, content: bytes, *, mode: int = 0o644) -> None:
            if not held_up.is_set():
                held_up.set()
                await go_on.wait()
            await super().write_note(place, content, mode=mode)

    slow = Slow()
    hashes = FileHashes(slow)
    async with create_task_group() as tasks:
        tasks.start_soon(publish, slow, hashes, b"first-")
        await held_up.wait()
        tasks.start_soon(publish, slow, hashes, b"second")
        await wait_all_tasks_blocked()
        go_on.set()
    assert slow.get(FILE.path) == b"second"
    assert await hash_of(slow, hashes) == sha256(b"second")
    assert slow.get(SIDECAR) == sha256(b"second").encode()


async def test_only_the_most_recent_files_are_remembered(
    disk: CountingFileSystem, hashes: FileHashes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_hashes, "REMEMBERED_FILES", 2)
    places = [RootedPath(TOP, PurePosixPath(name)) for name in ("a", "b", "c")]
    for place in places:
        disk.put(place.path, b"content")
        await hash_of(disk, hashes, place)
    disk.reads.clear()
    for place in reversed(places):
        assert await hash_of(disk, hashes, place) == sha256(b"content")
    assert disk.reads == ["a.sha256"]  # forgotten, but its sidecar is there


async def test_a_hash_that_somebody_else_made_sure_of_is_not_asked_of_the_content(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    disk.put(FILE.path, b"content")
    await hashes.learn(FILE, await stat_of(disk), sha256(b"content"))
    assert await hash_of(disk, hashes) == sha256(b"content")
    assert disk.reads == []
    assert disk.get(SIDECAR) == sha256(b"content").encode()


async def test_a_hash_of_what_was_there_before_is_not_learned(
    disk: CountingFileSystem, hashes: FileHashes
) -> None:
    disk.put(FILE.path, b"content")
    before = await stat_of(disk)
    disk.put(FILE.path, b"another")
    await hashes.learn(FILE, before, sha256(b"content"))
    assert disk.get(SIDECAR) is None
    assert await hash_of(disk, hashes) == sha256(b"another")
