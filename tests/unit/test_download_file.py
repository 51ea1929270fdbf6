"""Files from web servers, in memory and virtual time: whole, verified, and resumed where they broke."""

import hashlib
import logging
from pathlib import Path, PurePosixPath

import anyio
import pytest

from localai_worker.adapters.memory.downloads import InMemoryDownloads
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.download_file import DownloadFile, WantedFile
from localai_worker.domain.errors import (
    ArtifactInvalid,
    ArtifactMissing,
    ArtifactUnavailable,
    DownloadRefused,
    NoSpace,
    WorkerError,
)
from localai_worker.domain.ports.filesystem import RootedPath

URL = "https://h/model.gguf"
CONTENT = bytes(range(256)) * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PLACE = RootedPath(Path("/models"), PurePosixPath("sub/model.gguf"))


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


class Node:
    def __init__(self) -> None:
        self.filesystem = InMemoryFileSystem()
        self.web = InMemoryDownloads({URL: CONTENT})
        self.service = DownloadFile(self.filesystem, self.web)

    async def fetch(self, sha256: str = SHA256) -> bytes | None:
        await self.service.fetch(URL, PLACE, sha256=sha256)
        return self.filesystem.get(PLACE.path)

    async def failure(self, sha256: str = SHA256) -> WorkerError:
        with pytest.raises(WorkerError) as caught:
            await self.fetch(sha256)
        return caught.value

    @property
    def starts(self) -> list[int]:
        return [start for _, start in self.web.asked]


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.mark.parametrize("sha256", ["", SHA256, SHA256.upper()])
async def test_a_file_is_fetched_with_its_mode(node: Node, sha256: str) -> None:
    """M-4.1.2, M-8.3: a hash in capital letters is one too."""
    assert await node.fetch(sha256) == CONTENT
    assert node.filesystem.mode_of(PLACE.path) == 0o600
    assert node.filesystem.files(Path("/models")) == [PLACE.path]


async def test_a_broken_transfer_goes_on_where_it_broke(node: Node) -> None:
    """M-4.2.5, M-4.2.6."""
    node.web.breaks[URL] = 10_000
    started_s = anyio.current_time()
    assert await node.fetch() == CONTENT
    assert node.starts == [0, 10_000]
    assert anyio.current_time() - started_s == 2


async def test_without_a_hash_a_transfer_begins_anew(node: Node) -> None:
    """M-4.2.5: the file may have changed in between; upstream would splice the two."""
    node.web.breaks[URL] = 10_000
    assert await node.fetch("") == CONTENT
    assert node.starts == [0, 0]


async def test_a_server_without_parts_gives_all_again(node: Node) -> None:
    node.web.gives_parts = False
    node.web.breaks[URL] = 10_000
    assert await node.fetch() == CONTENT
    assert node.starts == [0, 10_000]


async def test_a_part_outlives_the_worker(node: Node) -> None:
    """M-4.2.7."""
    node.web.breaks[URL] = 10_000
    node.service.attempts = 1
    assert isinstance(await node.failure(), ArtifactUnavailable)
    assert node.filesystem.get(PLACE.path) is None
    again = DownloadFile(node.filesystem, node.web)
    await again.fetch(URL, PLACE, sha256=SHA256)
    assert node.starts == [0, 10_000]


async def test_the_part_of_another_file_is_not_gone_on_with(node: Node) -> None:
    node.web.breaks[URL] = 10_000
    node.service.attempts = 1
    await node.failure()
    other = b"another version" * 3000
    node.web.files[URL] = other
    await node.fetch(hashlib.sha256(other).hexdigest())
    assert node.starts == [0, 0]
    assert node.filesystem.get(PLACE.path) == other


async def test_a_cancelled_transfer_leaves_its_part(node: Node) -> None:
    node.web.breaks[URL] = 10_000
    with anyio.move_on_after(1):
        await node.fetch()
    await node.fetch()
    assert node.starts == [0, 10_000]


async def test_a_wrong_hash_leaves_the_old_file_and_no_part(node: Node) -> None:
    """M-4.2.4, G-F23: checked before the file appears; fetched again, for the part may have been bad."""
    node.filesystem.put(PLACE.path, b"old")
    error = await node.failure("0" * 64)
    assert isinstance(error, ArtifactInvalid)
    assert f"its SHA-256 is {SHA256}, should be 000" in str(error)
    assert node.starts == [0, 0, 0]
    assert node.filesystem.files(Path("/models")) == [PLACE.path]
    assert node.filesystem.get(PLACE.path) == b"old"


async def test_three_attempts_with_growing_waits(node: Node) -> None:
    """M-4.2.6."""
    node.web.offline = True
    started_s = anyio.current_time()
    assert isinstance(await node.failure(), ArtifactUnavailable)
    assert len(node.web.asked) == 3
    assert anyio.current_time() - started_s == 2 + 4


@pytest.mark.parametrize("kind", [ArtifactMissing, DownloadRefused])
async def test_a_definite_no_is_taken_as_one(node: Node, kind: type[WorkerError]) -> None:
    """M-4.2.6."""
    if kind is ArtifactMissing:
        node.web.files.clear()
    else:
        node.web.refused.add(URL)
    assert isinstance(await node.failure(), kind)
    assert len(node.web.asked) == 1


async def test_what_does_not_fit_is_refused_before_it_comes(node: Node) -> None:
    node.filesystem.capacity_bytes = 1000
    assert isinstance(await node.failure(), NoSpace)
    assert node.filesystem.files(Path("/models")) == []


async def test_a_size_nobody_tells_is_no_hindrance(node: Node) -> None:
    node.web.tells_size = False
    assert await node.fetch() == CONTENT


@pytest.mark.parametrize("sha256", ["abc", "g" * 64, "0" * 63])
async def test_what_is_no_hash_is_told(node: Node, sha256: str) -> None:
    assert "is no SHA-256; 64 hex digits are wanted" in str(await node.failure(sha256))
    assert node.web.asked == []


async def test_a_part_that_lacks_nothing_is_not_fetched_again(node: Node) -> None:
    """M-4.2.7: its worker was killed before the file could appear."""
    partial = await node.filesystem.open_partial(PLACE, sha256=SHA256, total_bytes=len(CONTENT))
    await partial.write(CONTENT)
    await partial.keep()
    assert await node.fetch() == CONTENT
    assert node.web.asked == []
    assert node.filesystem.files(Path("/models")) == [PLACE.path]


async def test_a_part_that_lacks_nothing_and_is_wrong_is_fetched_anew(node: Node) -> None:
    partial = await node.filesystem.open_partial(PLACE, sha256=SHA256, total_bytes=len(CONTENT))
    await partial.write(CONTENT[::-1])
    await partial.keep()
    assert await node.fetch() == CONTENT
    assert node.starts == [0]


async def test_some_of_the_disk_stays_free(node: Node) -> None:
    node.service.floor_bytes = 10_000
    node.filesystem.capacity_bytes = len(CONTENT) + 9_000
    error = await node.failure()
    assert isinstance(error, NoSpace)
    assert "10000 must stay free (LOCALAI_WORKER_DISK_FLOOR), 1000 are missing" in str(error)


async def test_a_file_that_never_ends_stops_at_what_must_stay_free(node: Node) -> None:
    """No size is told, so that nothing could be asked for beforehand."""
    node.web.files[URL] = bytes(80 << 20)
    node.web.tells_size = False
    node.service.floor_bytes = 10 << 20
    node.filesystem.capacity_bytes = 60 << 20
    assert isinstance(await node.failure(""), NoSpace)
    assert node.filesystem.files(Path("/models")) == []


@pytest.mark.parametrize("tells_size", [True, False])
@pytest.mark.parametrize("more", [-1, 1])
async def test_another_size_than_was_said_is_refused(node: Node, more: int, tells_size: bool) -> None:
    node.web.tells_size = tells_size
    wanted = WantedFile(url=URL, size_bytes=len(CONTENT) + more)
    with pytest.raises(WorkerError, match=f"{len(CONTENT) + more}|1 bytes early"):
        await node.service.fetch_wanted(wanted, PLACE)
    assert node.filesystem.files(Path("/models")) == []


async def test_a_size_that_is_known_lets_a_transfer_go_on_where_the_server_tells_none(node: Node) -> None:
    node.web.tells_size = False
    node.web.breaks[URL] = 10_000
    wanted = WantedFile(url=URL, sha256=SHA256, size_bytes=len(CONTENT))
    assert await node.service.fetch_wanted(wanted, PLACE) == SHA256
    assert node.starts == [0, 10_000]


async def test_a_long_transfer_says_how_far_it_is(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """M-8.2: upstream's says nothing for hours."""
    node.web.pause_s = 25
    with caplog.at_level(logging.INFO):
        await node.fetch()
    assert [record.message for record in caplog.records] == [
        f"on its way: url={URL} bytes={3 * 4096 * times} of={len(CONTENT)}" for times in (1, 2)
    ]
