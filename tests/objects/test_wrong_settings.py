"""Settings that are wrong: what a frontend is told, and `/readyz`, names the one to look at; it heals."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import botocore.auth
import pytest

from localai_worker.adapters.s3.object_store import S3ObjectStore
from localai_worker.domain.object_cache import DownloadFailed
from localai_worker.domain.stage_files import UploadFailed
from tests.faulty_proxy import faulty_proxy
from tests.objects.nodes import ObjectNode, bucket_at, s3_node
from tests.s3_servers import SECRET_KEY, S3Server
from tests.servers import free_port


@pytest.fixture(params=["rclone", "seaweed"])
async def node(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectNode]:
    monkeypatch.setattr("localai_worker.adapters.s3.client.ATTEMPTS", 1)
    server: S3Server = request.getfixturevalue(f"{request.param}_s3")
    with faulty_proxy(server.port) as proxy:
        node = s3_node(request.param, tmp_path, proxy)
        yield node
        await node.store.close()


WRONG = [
    pytest.param({"name": "no-such-bucket"}, "LOCALAI_STORAGE_BUCKET", id="bucket"),
    pytest.param({"name": "No Such/Bucket"}, "LOCALAI_STORAGE_BUCKET", id="bucket-name"),
    pytest.param({"access_key": "UNKNOWNKEY"}, "LOCALAI_STORAGE_ACCESS_KEY", id="access-key"),
    pytest.param({"secret_key": "wrong-secret-key"}, "LOCALAI_STORAGE_SECRET_KEY", id="secret-key"),
]


@pytest.mark.parametrize(("wrong", "setting"), WRONG)
async def test_a_wrong_setting_is_named_by_every_operation_and_by_readiness(
    node: ObjectNode, wrong: dict[str, str], setting: str
) -> None:
    """S-1.2.5, S-1.2.6, S-1.2.10: upstream passes on what the SDK says, one status code for a HEAD."""
    assert node.proxy is not None
    right = node.store.inner
    key, path = await node.upload("w", b"weights"), node.base / "staging" / "out"
    node.scene.put(path, b"result")
    async with node.live() as life:
        await life.cache.ensure(key)
        node.store.inner = S3ObjectStore(bucket_at(node.proxy.url, **wrong))
        said = []
        for asked in (key, node.key("absent")):  # by HEAD, which has no body, and by GET
            with pytest.raises(DownloadFailed) as failed:
                await life.cache.ensure(asked)
            assert str(failed.value).startswith(f"downloading {asked}: ")
            said.append(str(failed.value))
        if node.kind != "seaweed" or "name" not in wrong:  # which makes a bucket for whoever puts into it
            with pytest.raises(UploadFailed) as refused:
                await life.staging.stage(str(path), node.key("out"))
            said.append(str(refused.value))
        said.append(life.health.worry)
        for text in said:
            assert setting in text
            assert SECRET_KEY not in text
            assert "wrong-secret-key" not in text
        assert life.health.worries == ("the object store cannot be used",)
        await node.store.inner.close()
        node.store.inner = right
        await life.cache.ensure(key)
        assert life.health.worry == ""
    assert await node.stored_keys() == (key,)
    assert node.names == {key}


async def test_a_clock_that_is_wrong_is_named(node: ObjectNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """S-1.2.10: the servers take signatures of fifteen minutes around their time."""
    key = await node.upload("w", b"weights")

    def in_two_hours(*, remove_tzinfo: bool = True) -> datetime:
        now = datetime.now(UTC) + timedelta(hours=2)
        return now.replace(tzinfo=None) if remove_tzinfo else now

    monkeypatch.setattr(botocore.auth, "get_current_datetime", in_two_hours)
    async with node.live() as life:
        with pytest.raises(DownloadFailed, match="this machine's clock is wrong: set it"):
            await life.cache.ensure(key)
        monkeypatch.undo()
        await life.cache.ensure(key)
        assert life.health.worry == ""


async def test_nobody_there_names_the_setting_and_is_found_when_somebody_comes(node: ObjectNode) -> None:
    """S-1.2.11: the worker runs; the file comes as soon as the store does."""
    assert node.proxy is not None
    key = await node.upload("w", b"weights")
    right = node.store.inner
    node.store.inner = S3ObjectStore(bucket_at(f"http://127.0.0.1:{free_port()}", connect_s=1.0))
    async with node.live() as life, anyio.create_task_group() as tasks:
        with pytest.raises(DownloadFailed, match=r"cannot be reached.* check LOCALAI_STORAGE_URL"):
            await life.cache.ensure(key)
        assert "LOCALAI_STORAGE_URL" in life.health.worry
        await node.store.inner.close()
        node.store.inner = right
        tasks.start_soon(life.health.watch)
        with anyio.fail_after(20):
            while life.health.worry:
                await anyio.sleep(0.01)
        await life.cache.ensure(key)
        tasks.cancel_scope.cancel()
    assert node.cached(key) == b"weights"
