"""An object store between the frontend of a cluster and its workers."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio

from ...adapters.s3.lazy import LazyS3ObjectStore
from .local_cluster import LocalCluster
from .s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, s3_server


@asynccontextmanager
async def shared_store(cluster: LocalCluster, storage: str) -> AsyncIterator[Mapping[str, str]]:
    """An S3 server that the cluster's frontend uses, and a worker's settings for it; without `s3` nothing."""
    if storage != "s3":
        yield {}
        return
    async with s3_server(cluster.directory / "objects", cluster.ports.take()) as server:
        store = LazyS3ObjectStore(server.url, BUCKET, "us-east-1", ACCESS_KEY, SECRET_KEY)
        cluster.frontend.object_store = store
        try:
            yield server.settings
        finally:
            with anyio.CancelScope(shield=True):
                await store.close()
