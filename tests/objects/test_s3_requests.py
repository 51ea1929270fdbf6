"""What goes over the wire to an S3 server, as a proxy in between sees it."""

import pytest

from localai_worker.adapters.s3.object_store import S3ObjectStore
from tests.faulty_proxy import FaultyProxy
from tests.objects.nodes import ObjectNode, bucket_at
from tests.s3_servers import ACCESS_KEY, BUCKET

SIZES = [pytest.param(7, id="small"), pytest.param(3_000_000, id="large")]
S3 = pytest.mark.parametrize("node", ["rclone", "seaweed"], indirect=True)


@pytest.fixture
def proxy(node: ObjectNode) -> FaultyProxy:
    assert node.proxy is not None
    return node.proxy


def first_lines(proxy: FaultyProxy) -> list[str]:
    """Of every request: method and path."""
    lines = [request.split(b"\r\n", 1)[0].decode("latin-1") for request in proxy.requests]
    return [line.removesuffix(" HTTP/1.1") for line in lines if line.endswith(" HTTP/1.1")]


@S3
@pytest.mark.parametrize("size_bytes", SIZES)
async def test_a_repeated_ensure_is_one_head_on_the_wire(
    node: ObjectNode, proxy: FaultyProxy, size_bytes: int
) -> None:
    """S-K05, S-1.2.7: and the bucket is the first part of the path, never of the host (S-1.2.3)."""
    key = await node.upload("w", b"x" * size_bytes)
    async with node.live() as life:
        await life.cache.ensure(key)
        proxy.requests.clear()
        await life.cache.ensure(key)
    assert first_lines(proxy) == [f"HEAD /{BUCKET}/{key}"]
    assert f"Host: 127.0.0.1:{proxy.port}".encode().lower() in b"".join(proxy.requests).lower()


@S3
async def test_requests_are_signed_for_the_region(node: ObjectNode, proxy: FaultyProxy) -> None:
    """S-1.2.4, S-1.2.6: `us-east-1` unless told otherwise; with the static keys where both are set."""
    key = await node.upload("w", b"weights")
    proxy.requests.clear()
    async with node.live() as life:
        await life.cache.ensure(key)
        assert f"Credential={ACCESS_KEY}/".encode() in b"".join(proxy.requests)
        assert b"/us-east-1/s3/aws4_request" in b"".join(proxy.requests)
        proxy.requests.clear()
        elsewhere = S3ObjectStore(bucket_at(proxy.url, region="eu-central-1"))
        await elsewhere.list_keys(node.prefix)
        await elsewhere.close()
    assert b"/eu-central-1/s3/aws4_request" in b"".join(proxy.requests)
