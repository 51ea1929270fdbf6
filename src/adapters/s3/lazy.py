"""An S3 store of which nothing is loaded before it is first asked: boto3 takes half a second."""

from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from ...domain.ports.object_store import ObjectInfo, StagingKey, StoredObject
from ...domain.ports.ranged_files import SourceFile

if TYPE_CHECKING:
    from .object_store import S3ObjectStore


class LazyS3ObjectStore:
    """An `S3ObjectStore`, made when it is first used, in a thread."""

    def __init__(self, endpoint: str, bucket: str, region: str, access_key: str, secret_key: str) -> None:
        self._options = (endpoint, bucket, region, access_key, secret_key)
        self._store: S3ObjectStore | None = None
        self._loading = anyio.Lock()

    async def head(self, key: StagingKey) -> ObjectInfo:
        return await (await self._loaded()).head(key)

    async def open(self, key: StagingKey, known: ObjectInfo | None = None) -> StoredObject:
        return await (await self._loaded()).open(key, known)

    async def part_size_bytes(self, key: StagingKey, info: ObjectInfo, parts: int) -> int | None:
        return await (await self._loaded()).part_size_bytes(key, info, parts)

    async def put(self, key: StagingKey, source: SourceFile) -> None:
        await (await self._loaded()).put(key, source)

    async def delete(self, key: StagingKey) -> None:
        await (await self._loaded()).delete(key)

    async def list_keys(self, prefix: str) -> tuple[StagingKey, ...]:
        return await (await self._loaded()).list_keys(prefix)

    async def check(self) -> None:
        await (await self._loaded()).check()

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

    async def _loaded(self) -> "S3ObjectStore":
        async with self._loading:
            if self._store is None:
                self._store = await to_thread.run_sync(self._make)
            return self._store

    def _make(self) -> "S3ObjectStore":
        from .client import Bucket
        from .object_store import S3ObjectStore

        return S3ObjectStore(Bucket(*self._options))
