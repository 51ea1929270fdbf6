"""The simulated frontend's stager with an object store, against a worker in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from localai_worker.adapters.filesystem.ranged_files import LocalRangedFiles
from localai_worker.adapters.memory.object_store import InMemoryObjectStore
from localai_worker.app.simulator.failures import CommandRefused
from localai_worker.app.simulator.object_staging import ObjectStager
from localai_worker.app.testing import MemoryNode, memory_node
from localai_worker.domain.errors import FileUnreadable
from localai_worker.domain.store_errors import StoreUnavailable

KEY = "models/phi/phi.gguf"


@asynccontextmanager
async def staged() -> AsyncIterator[tuple[MemoryNode, InMemoryObjectStore, ObjectStager]]:
    async with memory_node(LOCALAI_STORAGE_URL="http://minio:9000") as node:
        store = node.parts.object_store()
        assert store is not None
        yield node, store, ObjectStager(store, LocalRangedFiles(), node.subjects, node.bus.request)


async def test_an_object_is_put_where_it_is_missing_and_never_compared(tmp_path: Path) -> None:
    """S-K05, S-1.5.1, S-1.2.9: the frontend's half of the fault stays: it must be the store that changes."""
    source = tmp_path / "phi.gguf"
    source.write_bytes(b"one")
    async with staged() as (node, store, stager):
        path = await stager.ensure(source, KEY)
        assert path == f"/node/cache/{KEY}"
        source.write_bytes(b"two")
        await stager.ensure(source, KEY)
        assert store.content(KEY) == b"one"
        await stager.put(source, KEY)
        await stager.ensure(source, KEY)
        assert node.parts.filesystem().get(Path(path)) == b"two"
        await stager.close()


async def test_results_come_back_and_their_objects_go(tmp_path: Path) -> None:
    """S-1.5.6, S-1.5.7, S-1.5.8, S-1.5.9, S-1.5.10: staged, read, deleted; by its path or by its key."""
    async with staged() as (node, store, stager):
        files = node.parts.filesystem()
        path = await stager.alloc_temp()
        files.put(Path(path), b"an image")
        await stager.fetch_result(path, tmp_path / "image")
        assert (tmp_path / "image").read_bytes() == b"an image"
        files.put(Path("/node/data/quantization/job/model.gguf"), b"small")
        assert await stager.list_dir("data/quantization/job") == ("model.gguf",)
        await stager.fetch_by_key("data/quantization/job/model.gguf", tmp_path / "model.gguf")
        assert (tmp_path / "model.gguf").read_bytes() == b"small"
        assert store.objects == {}


async def test_what_the_worker_and_the_store_say_is_raised(tmp_path: Path) -> None:
    async with staged() as (_, store, stager):
        with pytest.raises(FileUnreadable):
            await stager.ensure(tmp_path / "absent", KEY)
        with pytest.raises(CommandRefused, match="path outside allowed directories"):
            await stager.fetch_result("/etc/passwd", tmp_path / "passwd")
        with pytest.raises(CommandRefused, match="no such directory"):
            await stager.list_dir("models/absent")
        store.offline = True
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StoreUnavailable):
            await stager.ensure(tmp_path / "file", KEY)
