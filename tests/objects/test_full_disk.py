"""A disk without room: the janitor makes some first, the least recently used goes, what is in use stays."""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

import pytest

from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.open_files import InMemoryOpenFiles
from localai_worker.domain.object_cache import DownloadFailed
from localai_worker.domain.ports.filesystem import RootedPath
from localai_worker.domain.stage_files import UploadFailed
from tests.objects.nodes import HOUR, Life, ObjectNode, directory_node, memory_node

MIB = 1024 * 1024
DISK_BYTES = 17 * MIB
LARGE = 5 * MIB  # three of them fill the disk, with some room for what is small


@pytest.fixture(params=["memory", "tmpfs"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectNode]:
    """A node with a disk of 17 MiB: in memory, or a file system of its own."""
    if request.param == "memory":
        node = memory_node()
        assert isinstance(node.filesystem, InMemoryFileSystem)
        node.filesystem.capacity_bytes = DISK_BYTES
        yield node
        return
    node = directory_node(tmp_path)
    node.base.mkdir()
    with disk_at(node.base):
        yield node


@contextmanager
def disk_at(directory: Path) -> Iterator[None]:
    """A file system of 17 MiB at `directory`; skips the test where none can be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system of its own for the test: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


async def stored(node: ObjectNode, rest: str, size_bytes: int) -> str:
    """An object that takes no room on the node's disk; its key."""
    key = node.key(rest)
    content = os.urandom(64) * (size_bytes // 64)
    if node.kind == "memory":
        node.store.inner.store(key, content)  # type: ignore[attr-defined]
    else:
        path = node.base.parent / "store" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return key


async def cached(node: ObjectNode, life: Life, *rests: str) -> list[str]:
    """Objects of 5 MiB, fetched an hour after each other and long enough ago to be removed."""
    keys = []
    for rest in rests:
        keys.append(await stored(node, rest, LARGE))
        await life.cache.ensure(keys[-1])
        node.clock.time += HOUR
    await life.settle()
    return keys


async def test_the_least_recently_used_makes_room(node: ObjectNode) -> None:
    """S-1.3.8, S-K11: upstream's cache grows until the disk is full, and then every model fails."""
    async with node.live() as life:
        one, two, three = await cached(node, life, "one", "two", "three")
        await life.cache.ensure(one)  # wanted again: it goes after the others
        node.clock.time += HOUR
        key = await stored(node, "four", LARGE)
        await life.cache.ensure(key)
    assert node.names == {one, three, key}
    assert two not in node.names
    assert len(node.cached(key) or b"") == LARGE


async def test_what_is_in_use_stays_whatever_its_age(node: ObjectNode) -> None:
    """S-1.3.8: a file that a process has open, and those of a running model, are never removed."""
    async with node.live() as life:
        opened, served, idle = await cached(node, life, "opened/w", "served/w", "idle/w")
        node.running_models.add(str(PurePosixPath(served).parent.relative_to("models")))
        with ExitStack() as stack:
            if isinstance(node.open_files, InMemoryOpenFiles):
                node.open_files.opened.add(node.cache_root / opened)
            else:
                stack.enter_context((node.cache_root / opened).open("rb"))
            key = await stored(node, "new", LARGE)
            await life.cache.ensure(key)
    assert node.names == {opened, served, key}
    assert idle not in node.names


async def test_without_enough_that_may_go_nothing_is_removed_and_the_text_says_all(node: ObjectNode) -> None:
    """S-1.3.3: key, what is needed, what is free, what to do; nothing half-written, nothing lost in vain."""
    async with node.live() as life:
        keys = await cached(node, life, "one", "two", "three")
        node.running_models.add(node.prefix.removeprefix("models/").rstrip("/"))
        key = await stored(node, "four", LARGE)
        with pytest.raises(DownloadFailed) as caught:
            await life.cache.ensure(key)
        text = str(caught.value)
        assert text.startswith(
            f"downloading {key}: cannot write {node.cache_root / key}: {LARGE + 65536} bytes needed, "
        )
        assert " free, and the rest of the cache is in use or was asked for a moment ago" in text
        assert text.endswith("delete models or give the cache a larger disk, then ask again")
        assert node.names == set(keys)
        node.running_models.clear()
        too_large = await stored(node, "five", 2 * DISK_BYTES)
        with pytest.raises(DownloadFailed, match=f"{2 * DISK_BYTES + 65536} bytes needed"):
            await life.cache.ensure(too_large)
        assert node.names == set(keys)
        await life.cache.ensure(key)  # and now there is something that may go
    assert node.names == {keys[1], keys[2], key}


async def test_a_file_asked_for_a_moment_ago_is_not_taken_away(node: ObjectNode) -> None:
    """S-1.3.8: the other files of the model that is being loaded now."""
    async with node.live() as life:
        keys = await cached(node, life, "one", "two", "three")
        for key in keys:
            await life.cache.ensure(key)
        another = await stored(node, "four", LARGE)
        with pytest.raises(DownloadFailed, match="was asked for a moment ago"):
            await life.cache.ensure(another)
        assert node.names == set(keys)


async def test_a_small_object_makes_room_as_well(node: ObjectNode) -> None:
    """S-1.3.3: it comes whole with the answer that tells its version, and is written in one go."""
    async with node.live() as life:
        (old,) = await cached(node, life, "old")
        await fill(node)
        key = await stored(node, "small", 64 * 1024)
        await life.cache.ensure(key)
        assert node.hidden == []
    assert old not in node.names
    assert len(node.cached(key) or b"") == 64 * 1024


async def test_what_is_left_of_another_download_goes_too(node: ObjectNode) -> None:
    """S-K11: what came of a download that nobody went on with."""
    abandoned = RootedPath(node.cache_root, PurePosixPath("models/abandoned/w"))
    async with node.live() as life:
        part = await node.ranged.assemble(abandoned, version="v", size_bytes=14 * MIB)
        part.write_at(0, memoryview(b"x" * MIB))
        await part.keep()
        assert len(node.hidden) == 1
        node.clock.time += HOUR
        key = await stored(node, "new", LARGE)
        await life.cache.ensure(key)
    assert node.names == {key}


async def test_half_of_an_older_version_is_no_reason_to_fail(node: ObjectNode) -> None:
    """S-K05: the object changed while its download waited to go on: what came of the old one gives way."""
    key = await stored(node, "w", 14 * MIB)
    place = RootedPath(node.cache_root, PurePosixPath(key))
    part = await node.ranged.assemble(place, version=f"older {key}", size_bytes=14 * MIB)
    part.write_at(0, memoryview(b"x" * MIB))
    await part.keep()
    async with node.live() as life:
        await life.cache.ensure(key)
    assert node.names == {key}


async def test_a_shared_directory_without_room_takes_nothing_of_an_upload(tmp_path: Path) -> None:
    """S-1.3.4: the old object stays, no half of the new one; the text says where to make room."""
    node = directory_node(tmp_path)
    with disk_at(tmp_path / "store"):
        key, path = await node.upload("out", b"old"), node.base / "staging" / "out"
        node.scene.put(path, b"x" * (DISK_BYTES + MIB))
        async with node.live() as life:
            with pytest.raises(UploadFailed) as caught:
                await life.staging.stage(str(path), key)
        text = str(caught.value)
        assert text.startswith(f"uploading {path} to {key}: putting object {key}: No space left on device")
        assert text.endswith("free some room in the directory of LOCALAI_STORAGE_URL")
        assert await node.stored(key) == b"old"
        left = [each for each in (tmp_path / "store").rglob("*") if each.is_file()]
        assert left == [tmp_path / "store" / key]


async def fill(node: ObjectNode) -> None:
    """Leave no more than some pages of the disk."""
    space = await node.filesystem.space(node.base)
    assert space is not None
    node.scene.put(node.base / "filler", b"x" * (space.available_bytes - 16 * 1024))
