"""The four `files.*` subjects of a worker in memory."""

import json
from pathlib import Path

import anyio
import pytest

from localai_worker.adapters.memory.object_store import InMemoryObjectStore
from localai_worker.app.testing import MemoryNode, memory_node
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.errors import NoResponders
from localai_worker.domain.messages.files import (
    FilesEnsureReply,
    FilesEnsureRequest,
    FilesListdirReply,
    FilesListdirRequest,
    FilesStageReply,
    FilesStageRequest,
    FilesTempReply,
)
from localai_worker.domain.messages.model import ModelDeleteReply, ModelDeleteRequest
from localai_worker.domain.messages.writing import EMPTY_REQUEST

S3 = {"LOCALAI_STORAGE_URL": "http://minio:9000"}


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


def store_of(node: MemoryNode) -> InMemoryObjectStore:
    store = node.parts.object_store()
    assert store is not None
    return store


async def test_without_an_object_store_nobody_listens() -> None:
    """S-1.2.1, S-1.2.2: a frontend with an object store fails at a worker without."""
    async with memory_node() as node:
        with pytest.raises(NoResponders):
            await node.bus.request(node.subjects.files_temp, EMPTY_REQUEST, timeout_s=5)


async def test_ensure_brings_the_object_as_it_is_now() -> None:
    """S-K05: twice the same key, and the second time new bytes."""
    async with memory_node(**S3) as node:
        for content in (b"one", b"two"):
            store_of(node).store("models/phi/w", content)
            request = FilesEnsureRequest(key="models/phi/w")
            reply = await node.ask(node.subjects.files_ensure, request, FilesEnsureReply)
            assert reply == FilesEnsureReply(local_path="/node/cache/models/phi/w")
            assert node.parts.filesystem().get(Path(reply.local_path)) == content


async def test_temp_stage_and_listdir() -> None:
    """S-1.4.2, S-1.4.3, S-1.4.4: whatever `files.temp` is sent, it is not read."""
    async with memory_node(**S3) as node:
        reply = await node.bus.request(node.subjects.files_temp, b"", timeout_s=5)
        path = FilesTempReply.from_wire(reply).local_path
        node.parts.filesystem().put(Path(path), b"result")
        request = FilesStageRequest(local_path=path, key=f"ephemeral/fetch/{path}/output")
        staged = await node.ask(node.subjects.files_stage, request, FilesStageReply)
        assert staged == FilesStageReply(key=request.key)
        assert store_of(node).content(request.key) == b"result"
        node.parts.filesystem().put(Path("/node/data/job/model.gguf"), b"")
        listed = await node.ask(
            node.subjects.files_listdir, FilesListdirRequest(key_prefix="data/job"), FilesListdirReply
        )
        assert listed.files == ("model.gguf",)


@pytest.mark.parametrize(
    ("subject", "payload", "error"),
    [
        ("ensure", b"{}", 'key "" escapes cache directory'),
        ("ensure", b"null", 'key "" escapes cache directory'),
        ("ensure", b'{"key":"../x"}', 'key "../x" escapes cache directory'),
        ("ensure", b"", "invalid request"),
        ("ensure", b'{"key":1}', "invalid request"),
        ("stage", b"null", "invalid key '': it is empty"),
        ("stage", b'{"local_path":"","key":"x"}', "path outside allowed directories"),
        ("stage", b"[", "invalid request"),
        ("listdir", b'{"key_prefix":"../.."}', "invalid key prefix"),
        ("listdir", b"7", "invalid request"),
    ],
)
async def test_bad_requests_get_the_words_of_upstream(subject: str, payload: bytes, error: str) -> None:
    """S-1.4.1, S-1.4.2, S-1.4.4"""
    async with memory_node(**S3) as node:
        name = getattr(node.subjects, f"files_{subject}")
        reply = json.loads(await node.bus.request(name, payload, timeout_s=5))
        assert reply == {"error": error}


async def test_an_empty_list_is_null() -> None:
    """S-1.4.4"""
    async with memory_node(**S3) as node:
        node.parts.filesystem().put(Path("/node/data/job/.x.1.incoming"), b"")
        reply = await node.bus.request(node.subjects.files_listdir, b'{"key_prefix":"data/job"}', timeout_s=5)
        assert reply == b'{"files":null}'


async def test_a_list_too_long_for_the_bus_is_an_error_that_says_so() -> None:
    async with memory_node(**S3) as node:
        for number in range(6000):
            node.parts.filesystem().put(Path(f"/node/data/job/{number:06}-{'x' * 200}"), b"")
        reply = await node.ask(
            node.subjects.files_listdir, FilesListdirRequest(key_prefix="data/job"), FilesListdirReply
        )
        assert "6000 files" in reply.error
        assert "longer prefix" in reply.error


async def test_a_store_that_is_away_at_the_start_keeps_nobody_from_working() -> None:
    """N-B22: upstream's newer worker does not start, its seed goes on without `files.*` for ever."""
    async with memory_node(**S3) as node:
        store = store_of(node)
        store.store("models/w", b"w")
        store.offline = True
        request = FilesEnsureRequest(key="models/w")
        reply = await node.ask(node.subjects.files_ensure, request, FilesEnsureReply)
        assert "offline" in reply.error
        assert node.worker.storage is not None
        assert "offline" in node.worker.storage.health.worry
        store.offline = False
        await anyio.sleep(40)
        assert node.worker.storage.health.worry == ""
        assert (await node.ask(node.subjects.files_ensure, request, FilesEnsureReply)).error == ""


async def test_a_download_cut_by_the_end_of_the_worker_is_answered() -> None:
    async with memory_node(**S3) as node:
        store_of(node).store("models/w", b"w" * 64 * 1024 * 3)
        store_of(node).block_s = 1000
        replies: list[FilesEnsureReply] = []

        async def ensure() -> None:
            request = FilesEnsureRequest(key="models/w")
            replies.append(await node.ask(node.subjects.files_ensure, request, FilesEnsureReply))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ensure)
            await anyio.sleep(1)
            node.worker.stop_requested.set()
        (reply,) = replies
        assert reply.error.startswith("this worker is shutting down")


async def test_deleting_a_model_removes_what_came_through_the_store() -> None:
    """S-K06: upstream removes the models directory's copy only, and the cache keeps the other for ever."""
    async with memory_node(**S3) as node:
        files = node.parts.filesystem()
        for key in ("models/phi/w", "models/phi-2/w"):
            store_of(node).store(key, b"w")
            await node.ask(node.subjects.files_ensure, FilesEnsureRequest(key=key), FilesEnsureReply)
        files.put(Path("/node/models/phi/w"), b"w")
        reply = await node.ask(
            node.subjects.model_delete, ModelDeleteRequest(model_name="phi"), ModelDeleteReply
        )
        assert reply == ModelDeleteReply(success=True)
        left = [str(path) for path in files.files(Path("/node")) if path.name == "w"]
        assert left == ["/node/cache/models/phi-2/w"]
