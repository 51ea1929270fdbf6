"""What the janitor clears away on real disks and in memory, and what it never touches."""

from contextlib import ExitStack
from pathlib import PurePosixPath

import pytest

from localai_worker.adapters.memory.open_files import InMemoryOpenFiles
from localai_worker.domain import cache_janitor
from localai_worker.domain.ports.filesystem import RootedPath
from tests.objects.nodes import HOUR, ObjectNode


@pytest.fixture(autouse=True)
def room_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """However full the disk of this machine is."""
    monkeypatch.setattr(cache_janitor, "SPARE_SHARE", 0)
    monkeypatch.setattr(cache_janitor, "SPARE_BYTES", 0)


async def test_inputs_of_single_requests_go_after_an_hour_with_their_directories(node: ObjectNode) -> None:
    """S-K11, S-1.3.8, S-1.1.5: nothing ever removes them upstream; the frontend deletes the objects."""
    unique = node.prefix.split("/")[1]
    key = f"ephemeral/inputs/{unique}/image.png"
    await node.upload_as(key, b"image")
    async with node.live() as life:
        await life.cache.ensure(key)
        await life.settle()
        node.clock.time += HOUR / 2
        await life.janitor.sweep()
        assert node.names == {key}
        node.clock.time += HOUR
        await life.janitor.sweep()
        assert node.names == set()
        left = await node.filesystem.locate(RootedPath(node.cache_root, PurePosixPath(key).parent))
        assert left is None


async def test_temporaries_and_abandoned_downloads_go_after_a_day(node: ObjectNode) -> None:
    """S-K11, N-B22, S-1.4.3: `staging-tmp` and partial files stay for ever upstream."""
    place = RootedPath(node.cache_root, PurePosixPath(node.key("w")))
    async with node.live() as life:
        await life.staging.new_temporary()
        part = await node.ranged.assemble(place, version="v", size_bytes=10)
        await part.keep()
        assert len(node.names) == 2
        node.clock.time += 23 * HOUR
        await life.janitor.sweep()
        assert len(node.names) == 2
        node.clock.time += 2 * HOUR
        await life.janitor.sweep()
        assert node.names == set()


async def test_beyond_the_limit_the_least_recently_used_go_and_nothing_in_use(node: ObjectNode) -> None:
    """S-K11, S-1.3.8: the oldest of three is open, so the next one goes."""
    keys = [await node.upload(f"{rest}/w", b"x" * 100) for rest in ("opened", "idle", "new")]
    async with node.live(limit_bytes=250) as life:
        for key in keys:
            await life.cache.ensure(key)
            node.clock.time += HOUR
        node.clock.time += HOUR
        await life.settle()
        with ExitStack() as stack:
            if isinstance(node.open_files, InMemoryOpenFiles):
                node.open_files.opened.add(node.cache_root / keys[0])
            else:
                stack.enter_context((node.cache_root / keys[0]).open("rb"))
            await life.janitor.sweep()
        assert node.names == {keys[0], keys[2]}
        await life.cache.ensure(keys[1])  # the store still has it
        assert node.cached(keys[1]) == b"x" * 100


@pytest.mark.parametrize("limit_bytes", [1, None])
async def test_objects_stay_while_there_is_room_or_their_model_runs(
    node: ObjectNode, limit_bytes: int | None
) -> None:
    """S-K11: with room for everything, or with none and a backend that serves it."""
    key = await node.upload("w", b"x" * 100)
    if limit_bytes:
        node.running_models.add(node.prefix.removeprefix("models/").rstrip("/"))
    async with node.live(limit_bytes=limit_bytes) as life:
        await life.cache.ensure(key)
        await life.settle()
        node.clock.time += 10_000 * HOUR
        await life.janitor.sweep()
        assert node.names == {key}
