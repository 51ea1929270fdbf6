"""An object of 10 GiB: fetched in little memory, and then one HEAD for each request."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psutil
import pytest

from localai_worker.adapters.s3.object_store import S3ObjectStore
from tests.faulty_proxy import faulty_proxy
from tests.objects.nodes import bucket_at, local_node
from tests.s3_servers import BUCKET, start_rclone

MIB = 2**20
SIZE_BYTES = 10 * 2**30
ROOM_BYTES = SIZE_BYTES + 2 * 2**30
GROWTH_BYTES = 64 * MIB


@pytest.mark.large
async def test_ten_gib_are_fetched_in_little_memory_and_then_cost_one_head(tmp_path: Path) -> None:
    """S-K05, S-1.3.3: the bytes go from the network to the disk, and what is unchanged stays where it is."""
    free_bytes = shutil.disk_usage(tmp_path).free
    if free_bytes < ROOM_BYTES:
        pytest.skip(f"{free_bytes // 2**30} GiB free at {tmp_path}, {ROOM_BYTES // 2**30} needed")
    # Without ETags: rclone would hash 10 GiB for each answer.
    server = start_rclone(tmp_path / "objects", None, "--etag-hash", "")
    key = "models/huge/w"
    source = tmp_path / "objects" / BUCKET / key
    source.parent.mkdir(parents=True)
    with source.open("wb") as file:
        file.truncate(SIZE_BYTES)  # sparse
    node = local_node("rclone", tmp_path, S3ObjectStore(bucket_at(server.url)))
    try:
        async with node.live() as life:
            async with peak_growth_bytes() as growth:
                path = await life.cache.ensure(key)
            assert path.stat().st_size == SIZE_BYTES
            assert growth.bytes < GROWTH_BYTES
            await node.store.close()
            with faulty_proxy(server.port) as proxy:
                node.store.inner = S3ObjectStore(bucket_at(proxy.url))
                inode = path.stat().st_ino
                assert await life.cache.ensure(key) == path
                assert path.stat().st_ino == inode
                assert [request.split(b" ")[0] for request in proxy.requests] == [b"HEAD"]
                await node.store.close()
            path.unlink()  # the disk need not be given what nobody reads again
    finally:
        server.stop()
        shutil.rmtree(tmp_path / "node", ignore_errors=True)


class Growth:
    """How much more memory this process took at most."""

    bytes = 0


@asynccontextmanager
async def peak_growth_bytes() -> AsyncIterator[Growth]:
    """Measures while it is open."""
    growth, process = Growth(), psutil.Process()
    before = process.memory_info().rss

    async def watch() -> None:
        while True:
            growth.bytes = max(growth.bytes, process.memory_info().rss - before)
            await anyio.sleep(0.05)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        yield growth
        tasks.cancel_scope.cancel()
