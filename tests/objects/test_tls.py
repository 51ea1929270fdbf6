"""A store over TLS whose certificate an authority of the site's own has signed."""

import random
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import trustme
from anyio import to_thread

from localai_worker.adapters.s3 import upload
from localai_worker.adapters.s3.object_store import S3ObjectStore
from localai_worker.domain.object_cache import DownloadFailed
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.objects.nodes import ObjectNode, bucket_at, local_node
from tests.s3_servers import start_rclone

MIB = 1024 * 1024
CONTENT = random.Random(1).randbytes(11 * MIB)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    return authority


@pytest.fixture
def proxy(tmp_path: Path, authority: trustme.CA) -> Iterator[FaultyProxy]:
    """In front of a store that speaks TLS."""
    issued = authority.issue_cert("127.0.0.1")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    issued.private_key_pem.write_to_path(key)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    server = start_rclone(tmp_path / "objects", None, "--cert", str(chain), "--key", str(key))
    with faulty_proxy(server.port) as proxy:
        yield proxy
    server.stop()


def node_at(proxy: FaultyProxy, tmp_path: Path) -> ObjectNode:
    url = f"https://127.0.0.1:{proxy.port}"
    return local_node("rclone", tmp_path, S3ObjectStore(bucket_at(url)), proxy)


async def test_an_authority_of_the_sites_own_is_trusted_by_the_usual_variable(
    proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-1.2.3: `AWS_CA_BUNDLE`; without it the text says what to look at."""
    monkeypatch.setattr(upload, "MULTIPART_FROM_BYTES", 8 * MIB)
    monkeypatch.setattr(upload, "PART_BYTES", 5 * MIB)
    monkeypatch.setattr("localai_worker.adapters.s3.client.ATTEMPTS", 1)
    node = node_at(proxy, tmp_path)
    async with node.live() as life:
        with pytest.raises(DownloadFailed, match=r"TLS failed: .*LOCALAI_STORAGE_URL has the right scheme"):
            await life.cache.ensure(node.key("w"))
        await node.store.close()
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "authority.pem"))
        node.store.inner = node_at(proxy, tmp_path).store.inner
        for content in (CONTENT, b"small"):
            key = await node.upload("w", content)
            await life.cache.ensure(key)
            assert node.cached(key) == content
    await node.store.close()


async def test_a_store_that_falls_silent_below_tls_holds_up_no_end_of_a_worker(
    proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N-B22: its connection is shut down below TLS, whatever state that is in."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    node = node_at(proxy, tmp_path)
    key = await node.upload("w", CONTENT)
    await node.store.close()
    for silent_after in (MIB, 4000):  # within the object, and about where it begins
        node.store.inner = node_at(proxy, tmp_path).store.inner
        proxy.stalled.clear()
        proxy.stalls.extend([silent_after] * 40)
        with anyio.fail_after(20):
            async with node.live() as life, anyio.create_task_group() as tasks:
                tasks.start_soon(life.cache.ensure, key)
                await to_thread.run_sync(proxy.stalled.wait, 10)
                tasks.cancel_scope.cancel()
        proxy.stalls.clear()
        await node.store.close()
        assert node.cached(key) is None
    node.store.inner = node_at(proxy, tmp_path).store.inner
    async with node.live() as life:
        await life.cache.ensure(key)
    assert node.cached(key) == CONTENT
    await node.store.close()
