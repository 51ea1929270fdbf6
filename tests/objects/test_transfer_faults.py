"""Networks and stores that cut, stall and lie in the middle of a transfer, over two real S3 servers."""

import random
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

import anyio
import pytest
from anyio import to_thread
from botocore.exceptions import ClientError

from localai_worker.adapters.s3 import download, upload
from localai_worker.adapters.s3.failures import code_of
from localai_worker.adapters.s3.object_store import S3ObjectStore
from localai_worker.domain.object_cache import DownloadFailed
from localai_worker.domain.ports.filesystem import RootedPath
from localai_worker.domain.stage_files import UploadFailed
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.objects.nodes import ObjectNode, bucket_at, s3_node
from tests.s3_servers import BUCKET, S3Server

MIB = 1024 * 1024
SMALL = random.Random(1).randbytes(2 * MIB)
LARGE = random.Random(2).randbytes(11 * MIB)  # in parts of 5 MiB
CONTENTS = [pytest.param(SMALL, id="one-request"), pytest.param(LARGE, id="in-parts")]


@pytest.fixture(params=["rclone", "seaweed"])
async def node(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectNode]:
    monkeypatch.setattr(upload, "MULTIPART_FROM_BYTES", 8 * MIB)
    monkeypatch.setattr(upload, "PART_BYTES", 5 * MIB)
    monkeypatch.setattr(download, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("localai_worker.adapters.s3.client.ATTEMPTS", 1)
    server: S3Server = request.getfixturevalue(f"{request.param}_s3")
    with faulty_proxy(server.port) as proxy:
        node = s3_node(request.param, tmp_path, proxy)
        yield node
        await node.store.close()


@pytest.fixture
def proxy(node: ObjectNode) -> FaultyProxy:
    assert node.proxy is not None
    return node.proxy


@pytest.fixture
async def direct(node: ObjectNode, proxy: FaultyProxy) -> AsyncIterator[S3ObjectStore]:
    """The store past the proxy."""
    store = S3ObjectStore(bucket_at(f"http://127.0.0.1:{proxy.target}"))
    yield store
    await store.close()


def uploads_left(node: ObjectNode, direct: S3ObjectStore) -> list[str]:
    """Keys of this test whose upload in parts was neither finished nor aborted."""
    try:
        answer = direct._client.get().list_multipart_uploads(Bucket=BUCKET)
    except ClientError as error:  # how rclone says that there was none, ever
        if code_of(error) != "NoSuchUpload":
            raise
        return []
    return [each["Key"] for each in answer.get("Uploads", []) if each["Key"].startswith(node.prefix)]


def result(node: ObjectNode, content: bytes) -> tuple[Path, str]:
    """A file to be staged, and the key for it."""
    path = node.base / "staging" / "out"
    node.scene.put(path, content)
    return path, node.key("out")


@pytest.mark.parametrize("content", CONTENTS)
async def test_an_upload_that_is_cut_once_is_tried_again(
    node: ObjectNode, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """S-K09, S-1.2.7: the SDK's three tries, over bodies that can be sent again."""
    monkeypatch.setattr("localai_worker.adapters.s3.client.ATTEMPTS", 3)
    path, key = result(node, content)
    proxy.upload_cuts.extend([MIB])
    async with node.live() as life:
        await life.staging.stage(str(path), key)
    assert proxy.upload_cuts == type(proxy.upload_cuts)()
    assert await node.stored(key) == content


@pytest.mark.parametrize("content", CONTENTS)
async def test_an_upload_that_is_cut_again_and_again_stores_nothing(
    node: ObjectNode, proxy: FaultyProxy, direct: S3ObjectStore, content: bytes
) -> None:
    """S-K09, S-1.3.4: the old object stays, no parts stay, and the error names the store."""
    path, key = result(node, content)
    await node.upload_as(key, b"old")
    proxy.upload_limit = 1_500_000
    async with node.live() as life:
        with pytest.raises(UploadFailed) as caught:
            await life.staging.stage(str(path), key)
        assert str(caught.value).startswith(
            f'uploading {path} to {key}: putting object {key}: bucket "{BUCKET}" at {proxy.url}'
        )
        assert life.health.worry
        proxy.upload_limit = None
        assert await node.stored(key) == b"old"
        assert uploads_left(node, direct) == []
        await life.staging.stage(str(path), key)
        assert life.health.worry == ""
    assert await node.stored(key) == content
    assert uploads_left(node, direct) == []


async def test_parts_that_could_not_be_given_up_at_once_are_when_the_store_answers_again(
    node: ObjectNode, proxy: FaultyProxy, direct: S3ObjectStore
) -> None:
    """S-K09: the network went away in the middle; what has arrived would be kept, and paid for, for ever."""
    path, key = result(node, LARGE)
    proxy.upload_stall = 3 * MIB
    async with node.live() as life, anyio.create_task_group() as tasks:

        async def stage() -> None:
            with pytest.raises(UploadFailed):
                await life.staging.stage(str(path), key)

        tasks.start_soon(stage)
        await to_thread.run_sync(proxy.stalled.wait, 20)
        proxy.refusing = True
        proxy.resume()
    assert uploads_left(node, direct) == [key]
    proxy.refusing = False
    await node.store.check()
    assert uploads_left(node, direct) == []
    assert await node.stored_keys() == ()


@pytest.mark.parametrize("content", CONTENTS)
async def test_an_upload_cut_by_the_end_of_the_worker_leaves_nothing(
    node: ObjectNode, proxy: FaultyProxy, direct: S3ObjectStore, content: bytes
) -> None:
    """S-1.4.2: no part, no object, and no waiting for a store that has fallen silent."""
    path, key = result(node, content)
    proxy.upload_stall = 1_500_000
    async with node.live() as life:
        # Less than the 30 s after which a send would give up by itself.
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(life.staging.stage, str(path), key)
                await to_thread.run_sync(proxy.stalled.wait, 10)
                tasks.cancel_scope.cancel()
    proxy.release()
    await node.store.check()
    assert uploads_left(node, direct) == []
    assert await node.stored_keys() == ()
    assert [path.name for path in node.scene.files(node.base / "staging")] == ["out"]


async def test_a_store_that_takes_no_more_of_an_upload_is_given_up(
    node: ObjectNode, proxy: FaultyProxy, direct: S3ObjectStore
) -> None:
    """S-1.3.4: it is silent: the error names it and the setting to look at."""
    path, key = result(node, SMALL)
    node.store.inner = S3ObjectStore(bucket_at(proxy.url, read_s=0.3))
    proxy.upload_stall = MIB
    async with node.live() as life:
        with pytest.raises(UploadFailed, match=rf"{proxy.url}.*LOCALAI_STORAGE_URL"):
            await life.staging.stage(str(path), key)
    proxy.release()
    assert await node.stored_keys() == ()


async def test_a_download_cut_by_the_end_of_the_worker_goes_on_in_the_next_life(
    node: ObjectNode, proxy: FaultyProxy
) -> None:
    """S-K10, S-1.3.3: nothing to be seen of it meanwhile; what has come is not fetched again."""
    key = await node.upload("w", LARGE)
    await node.store.close()
    node.store.inner = S3ObjectStore(bucket_at(proxy.url))  # on a connection of its own
    proxy.stalls.extend([6 * MIB] * 40)
    async with anyio.create_task_group() as tasks, node.live() as life:

        async def ensure() -> None:
            with pytest.raises(DownloadFailed, match="this worker is shutting down"):
                await life.cache.ensure(key)

        await node.store.close()
        node.store.inner = S3ObjectStore(bucket_at(proxy.url))
        proxy.stalls.popleft()
        tasks.start_soon(ensure)
        await to_thread.run_sync(proxy.stalled.wait, 20)
    assert node.cached(key) is None
    assert len(node.hidden) == 1
    assert len(node.names) == 1
    proxy.stalls.clear()
    proxy.requests.clear()
    async with node.live() as life:
        await life.cache.ensure(key)
    ranges = [request for request in proxy.requests if b"range: bytes=0-" in request.lower()]
    assert ranges == []
    assert node.cached(key) == LARGE
    assert node.hidden == []


async def test_an_object_replaced_while_it_is_read_by_ranges_is_read_anew(
    node: ObjectNode, proxy: FaultyProxy, direct: S3ObjectStore
) -> None:
    """S-K05: by If-Match, and by the ETag where a store ignores that; never a mix of both."""
    key = await node.upload("w", LARGE)
    await node.store.close()
    node.store.inner = S3ObjectStore(bucket_at(proxy.url))
    proxy.stalls.extend([6 * MIB])
    other = random.Random(3).randbytes(len(LARGE))
    async with node.live() as life, anyio.create_task_group() as tasks:
        tasks.start_soon(life.cache.ensure, key)
        await to_thread.run_sync(proxy.stalled.wait, 20)
        node.scene.put(node.base / "frontend" / "other", other)
        source = await node.ranged.open_source(place(node, "frontend/other"))
        assert source is not None
        await direct.put(key, source)  # type: ignore[arg-type]
        await source.close()
        proxy.release()
    assert node.cached(key) == other
    assert node.hidden == []


LIES = [pytest.param(-70_000, id="shorter"), pytest.param(70_000, id="longer")]


@pytest.mark.parametrize("lie", LIES)
async def test_a_store_that_lies_about_a_length_gives_no_wrong_file(
    node: ObjectNode, proxy: FaultyProxy, lie: int
) -> None:
    """S-1.3.3: the whole object, or an error that names it; never a file of another length."""
    key = await node.upload("w", SMALL)
    node.store.inner = S3ObjectStore(bucket_at(proxy.url, read_s=0.3))
    proxy.replace = (
        f"Content-Length: {len(SMALL)}\r\n".encode(),
        f"Content-Length: {len(SMALL) + lie}\r\n".encode(),
    )
    async with node.live() as life:
        with pytest.raises(DownloadFailed, match=f"downloading {key}: getting object {key}: "):
            await life.cache.ensure(key)
        assert node.cached(key) is None
        proxy.replace = None
        await life.cache.ensure(key)
    assert node.cached(key) == SMALL
    assert node.hidden == []


async def test_an_object_deleted_while_it_is_read_is_told_and_the_old_file_stays(
    node: ObjectNode, proxy: FaultyProxy, direct: S3ObjectStore
) -> None:
    """S-1.3.3"""
    key = await node.upload("w", b"old")
    async with node.live() as life:
        await life.cache.ensure(key)
        await node.upload("w", LARGE)
        await node.store.close()
        node.store.inner = S3ObjectStore(bucket_at(proxy.url))
        proxy.stalls.extend([6 * MIB])

        async def ensure() -> None:
            with pytest.raises(DownloadFailed, match=r"no such object|was replaced while it was read"):
                await life.cache.ensure(key)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ensure)
            await to_thread.run_sync(proxy.stalled.wait, 20)
            await direct.delete(key)  # type: ignore[arg-type]
            proxy.release()
    assert node.cached(key) == b"old"


async def test_a_store_that_answers_too_slowly_is_told_and_what_came_is_kept(
    node: ObjectNode, proxy: FaultyProxy
) -> None:
    """S-1.3.3, N-B22: no wait without a bound."""
    key = await node.upload("w", LARGE)
    node.store.inner = S3ObjectStore(bucket_at(proxy.url, read_s=0.2))
    proxy.stalls.extend([6 * MIB, *[1000] * 60])
    async with node.live() as life:
        with pytest.raises(DownloadFailed) as caught:
            await life.cache.ensure(key)
        assert str(caught.value).startswith(f"downloading {key}: getting object {key}: ")
        assert proxy.url in str(caught.value)
        assert node.cached(key) is None
        assert len(node.hidden) == 1
        proxy.stalls.clear()
        await life.cache.ensure(key)
    assert node.cached(key) == LARGE
    assert node.hidden == []


def place(node: ObjectNode, name: str) -> RootedPath:
    return RootedPath(node.base, PurePosixPath(name))


@pytest.mark.parametrize("asked", ["ensure", "ensure-again", "stage", "check"])
async def test_a_store_that_never_answers_holds_up_no_end_of_a_worker(
    node: ObjectNode, proxy: FaultyProxy, asked: str
) -> None:
    """N-B22: its threads are woken, whatever they asked; reading would give up after 30 s, three times."""
    path, key = result(node, SMALL)
    await node.upload_as(key, SMALL)
    with anyio.fail_after(20):
        async with node.live() as life:
            if asked == "ensure-again":
                await life.cache.ensure(key)
            await node.store.close()
            node.store.inner = S3ObjectStore(bucket_at(proxy.url))
            proxy.stalls.extend([0] * 10)
            ask = {
                "ensure": lambda: life.cache.ensure(key),
                "ensure-again": lambda: life.cache.ensure(key),
                "stage": lambda: life.staging.stage(str(path), key),
                "check": node.store.check,
            }[asked]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await to_thread.run_sync(proxy.stalled.wait, 10)
                tasks.cancel_scope.cancel()
    threads = [each for each in threading.enumerate() if "anyio" in each.name.lower()]
    with anyio.fail_after(20):
        while any(in_network(each) for each in threads):
            await anyio.sleep(0.01)


def in_network(thread: threading.Thread) -> bool:
    """Whether a thread is still in a call of the client: the interpreter waits for it at its end."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_filename.endswith("s3/calls.py"):
            return True
        frame = frame.f_back
    return False


async def test_a_model_deleted_while_it_is_fetched_is_told_and_can_be_had_again(
    node: ObjectNode, proxy: FaultyProxy
) -> None:
    """S-K06, N-B21: the directory goes with what has come; no later byte brings half of it back."""
    key = await node.upload("w", LARGE)
    await node.store.close()
    node.store.inner = S3ObjectStore(bucket_at(proxy.url))
    proxy.stalls.extend([6 * MIB])
    async with node.live() as life:

        async def ensure() -> None:
            with pytest.raises(DownloadFailed, match=f"downloading {key}: cannot write .*No such file"):
                await life.cache.ensure(key)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ensure)
            await to_thread.run_sync(proxy.stalled.wait, 20)
            await life.deleting.delete(node.prefix.removeprefix("models/").rstrip("/"))
            proxy.release()
        assert node.names == set()
        await life.cache.ensure(key)
    assert node.cached(key) == LARGE
    assert node.names == {key}
