"""Gallery indexes from galleries, mirrors, memory and disk, in virtual time."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.galleries import InMemoryGalleries
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.errors import ArtifactUnavailable, GalleryUnreadable
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.ports.galleries import GalleryDocument
from localai_worker.domain.read_galleries import ReadGalleries

HOME = "https://home.example/index.yaml"
MIRROR = "https://mirror.example/index.yaml"
SITE = Gallery("site", HOME, (MIRROR,))
COPIES = Path("/srv/cache/gallery")
COPY = COPIES / f"{hashlib.sha256(HOME.encode()).hexdigest()}.yaml"


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@dataclass
class Network:
    """Documents by url; remembers each request, lets servers fail or fall silent."""

    shelf: InMemoryGalleries = field(default_factory=InMemoryGalleries)
    down: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    slow_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    unchanged: int = 0

    async def fetch(self, url: str, *, trusted_root: Path, known: str = "") -> GalleryDocument | None:
        self.asked.append(url)
        await anyio.sleep(10_000 if url in self.silent else self.slow_s)
        if url in self.down:
            raise ArtifactUnavailable(url, "the server is down")
        document = await self.shelf.fetch(url, trusted_root=trusted_root, known=known)
        self.unchanged += document is None
        return document

    async def parse(self, content: bytes, *, url: str) -> object:
        return await self.shelf.parse(content, url=url)

    async def write(self, document: object) -> bytes:
        return await self.shelf.write(document)


class Reader:
    """The service under test between a network and a disk."""

    def __init__(self) -> None:
        self.network = Network()
        self.filesystem = InMemoryFileSystem()
        self.indexes = self.fresh()

    def fresh(self) -> ReadGalleries:
        """A reader that remembers nothing, as after a restart."""
        return ReadGalleries(self.network, self.filesystem, Path("/srv/backends"), COPIES)

    def offer(self, url: str, *names: str) -> None:
        self.network.shelf.indexes[url] = [{"name": name} for name in names]

    async def names(self, gallery: Gallery = SITE) -> Sequence[object]:
        return [entry["name"] for entry in (await self.indexes.read(gallery)).entries]

    async def failure(self, gallery: Gallery = SITE) -> str:
        with pytest.raises(GalleryUnreadable) as caught:
            await self.indexes.read(gallery)
        return str(caught.value)


@pytest.fixture
def reader() -> Reader:
    reader = Reader()
    reader.offer(HOME, "from home")
    reader.offer(MIRROR, "from mirror")
    return reader


async def test_the_gallery_itself_goes_before_its_mirrors(reader: Reader) -> None:
    """G-1.1.8, G-1.3.8."""
    assert await reader.names() == ["from home"]
    assert reader.network.asked == [HOME]


async def test_mirrors_are_tried_in_order_each_url_once_and_empty_ones_never(reader: Reader) -> None:
    """G-1.3.8."""
    reader.network.down = {HOME}
    gallery = Gallery("site", HOME, ("", HOME, MIRROR, MIRROR))
    assert await reader.names(gallery) == ["from mirror"]
    assert reader.network.asked == [HOME, MIRROR]


async def test_a_source_that_fell_silent_is_given_up_after_its_time(reader: Reader) -> None:
    """G-1.3.8, G-W19: an index has a deadline."""
    reader.network.silent = {HOME}
    started_s = anyio.current_time()
    assert await reader.names() == ["from mirror"]
    assert anyio.current_time() - started_s == 120


async def test_a_source_that_failed_is_passed_over_for_ten_minutes(reader: Reader) -> None:
    """G-1.3.8."""
    reader.network.down = {HOME}
    reader.indexes.fresh_s = 0
    await reader.names()
    reader.network.down = set()
    reader.network.asked.clear()
    await anyio.sleep(599)
    assert await reader.names() == ["from mirror"]
    assert reader.network.asked == [MIRROR]
    await anyio.sleep(1)
    assert await reader.names() == ["from home"]


async def test_the_rest_is_by_url_and_counts_for_every_gallery(reader: Reader) -> None:
    """G-1.3.8."""
    reader.network.down = {HOME}
    await reader.names()
    reader.network.asked.clear()
    assert await reader.names(Gallery("other", HOME, (MIRROR,))) == ["from mirror"]
    assert reader.network.asked == [MIRROR]


async def test_when_every_source_rests_none_does(reader: Reader) -> None:
    """G-1.3.8: without a copy on disk, all are tried again."""
    reader.network.down = {HOME, MIRROR}
    await reader.failure()
    reader.network.asked.clear()
    reader.network.down = set()
    assert await reader.names() == ["from home"]
    assert reader.network.asked == [HOME]


async def test_whoever_gives_up_waiting_does_not_make_a_source_rest(reader: Reader) -> None:
    """G-1.3.8."""
    reader.network.silent = {HOME}
    with anyio.move_on_after(5):
        await reader.names()
    reader.network.silent = set()
    assert await reader.names() == ["from home"]


async def test_the_last_good_index_is_kept_and_served_when_every_source_fails(reader: Reader) -> None:
    """G-1.3.9: raw bytes below cache/gallery, named by the hash of the gallery's url."""
    await reader.names()
    content = reader.filesystem.get(COPY)
    assert content is not None
    assert json.loads(content) == [{"name": "from home"}]
    assert reader.filesystem.mode_of(COPIES) == 0o750
    reader.network.down = {HOME, MIRROR}
    reader.indexes = reader.fresh()
    assert await reader.names() == ["from home"]
    assert reader.network.asked[-2:] == [HOME, MIRROR]


async def test_while_everything_rests_the_copy_is_served_without_waiting(reader: Reader) -> None:
    """G-1.3.9: a dead network must not cost every install two minutes."""
    await reader.names()
    reader.network.silent = {HOME, MIRROR}
    reader.indexes = reader.fresh()
    await reader.names()
    started_s = anyio.current_time()
    assert await reader.names() == ["from home"]
    assert anyio.current_time() == started_s


@pytest.mark.parametrize("content", [b"[]", b"<html>404</html>", b'{"name": "x"}', b'["x"]'])
async def test_only_a_list_of_entries_is_kept(reader: Reader, content: bytes) -> None:
    """G-1.3.9, G-F13: an error page is no index, neither in memory nor on disk."""
    reader.network.shelf.indexes[HOME] = content
    alone = Gallery("site", HOME)
    if content == b"[]":
        assert await reader.names(alone) == []
    else:
        await reader.failure(alone)
    assert reader.filesystem.get(COPY) is None
    reader.offer(HOME, "mended")
    assert await reader.names(alone) == ["mended"]


async def test_a_copy_that_is_broken_is_passed_over(reader: Reader) -> None:
    reader.filesystem.put(COPY, b"\xff")
    reader.network.down = {HOME, MIRROR}
    assert "no cached copy exists" in await reader.failure()


async def test_a_disk_that_takes_no_copy_does_no_harm(reader: Reader) -> None:
    reader.filesystem.put(COPIES.parent, b"a file in the way")
    assert await reader.names() == ["from home"]


async def test_a_failure_counts_the_sources_and_tells_the_last_reason(reader: Reader) -> None:
    """G-1.3.10, G-1.3.12."""
    reader.network.down = {HOME, MIRROR}
    gallery = Gallery("site", HOME, (MIRROR,))
    assert await reader.failure(gallery) == (
        f'failed to read gallery elements: gallery "site" at {HOME}: all 2 source(s) failed (2 configured, '
        "0 skipped as recently failed) and no cached copy exists, "
        f'last error: cannot fetch "{MIRROR}": the server is down'
    )
    third = Gallery("site", "https://third.example/x", (HOME,))
    assert "all 1 source(s) failed (2 configured, 1 skipped as recently failed)" in await reader.failure(
        third
    )


async def test_passwords_in_urls_are_not_told(reader: Reader) -> None:
    gallery = Gallery("site", "https://me:secret@h.example/x.yaml")
    assert "secret" not in await reader.failure(gallery)


async def test_a_gallery_without_url_is_told(reader: Reader) -> None:
    assert "the gallery has no url" in await reader.failure(Gallery("site", ""))


async def test_an_index_is_fetched_once_an_hour_and_then_only_if_it_changed(reader: Reader) -> None:
    """G-1.3.11."""
    assert await reader.names() == ["from home"]
    reader.offer(HOME, "changed")
    await anyio.sleep(3599)
    assert await reader.names() == ["from home"]
    assert reader.network.asked == [HOME]
    await anyio.sleep(1)
    assert await reader.names() == ["changed"]
    await anyio.sleep(3600)
    assert await reader.names() == ["changed"]
    assert (len(reader.network.asked), reader.network.unchanged) == (3, 1)


async def test_an_index_without_entries_is_fetched_every_time(reader: Reader) -> None:
    """G-1.3.11."""
    reader.offer(HOME)
    assert await reader.names() == []
    reader.offer(HOME, "filled")
    assert await reader.names() == ["filled"]


async def test_a_local_index_is_looked_at_every_time(reader: Reader) -> None:
    """G-1.3.11: an operator who edits it need not wait an hour."""
    local = Gallery("local", "file:///srv/backends/index.yaml")
    reader.offer(local.url, "first")
    assert await reader.names(local) == ["first"]
    assert await reader.names(local) == ["first"]
    assert reader.network.unchanged == 1
    reader.offer(local.url, "second")
    assert await reader.names(local) == ["second"]


async def test_a_local_index_that_is_broken_is_told_and_no_copy_stands_in(reader: Reader) -> None:
    """G-1.3.9."""
    local = Gallery("local", "file:///srv/backends/index.yaml")
    reader.offer(local.url, "good")
    await reader.names(local)
    reader.network.shelf.indexes[local.url] = b"{}"
    assert "a gallery index is a YAML list of entries" in await reader.failure(local)
    reader.offer(local.url, "mended")
    assert await reader.names(local) == ["mended"]


async def test_those_who_ask_at_the_same_time_share_one_fetch(reader: Reader) -> None:
    reader.network.slow_s = 5
    async with anyio.create_task_group() as asking:
        for _ in range(10):
            asking.start_soon(reader.names)
    assert reader.network.asked == [HOME]


async def test_a_slow_gallery_does_not_hold_up_another(reader: Reader) -> None:
    reader.network.silent = {HOME}
    async with anyio.create_task_group() as asking:
        asking.start_soon(reader.names)
        await anyio.sleep(1)
        assert await reader.names(Gallery("other", MIRROR)) == ["from mirror"]
        assert anyio.current_time() < 60
        asking.cancel_scope.cancel()


async def test_a_reference_leads_to_the_index_and_is_what_entries_record(reader: Reader) -> None:
    """G-1.3.5, G-1.3.13: the entries' gallery goes by the url that a reference led to, else as configured."""
    short = Gallery("short", "github:o/r/a/latest.ref")
    base = "https://raw.githubusercontent.com/o/r/main/a"
    reader.network.shelf.indexes[f"{base}/latest.ref"] = b"v7.yaml\n"
    reader.offer(f"{base}/v7.yaml", "referred")
    index = await reader.indexes.read(short)
    assert index.url == f"{base}/v7.yaml"
    assert [entry["name"] for entry in index.entries] == ["referred"]
    plain = Gallery("plain", "github:o/r/a/v7.yaml@main")
    assert (await reader.indexes.read(plain)).url == plain.url


async def test_a_reference_that_cannot_be_followed_lets_the_mirror_answer(reader: Reader) -> None:
    """G-1.3.5: mirrors and rests cover references too."""
    reader.network.shelf.indexes["https://home.example/latest.ref"] = b"../../x"
    assert await reader.names(Gallery("site", "https://home.example/latest.ref", (MIRROR,))) == [
        "from mirror"
    ]


async def test_galleries_of_requests_do_not_fill_the_memory(reader: Reader) -> None:
    for number in range(100):
        await reader.indexes.read(Gallery(f"site-{number}", HOME))
    assert len(reader.indexes._remembered) == 32
