"""An `ObjectStore` in one S3 bucket. boto3 blocks, so every call runs in a worker thread."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from anyio import CapacityLimiter, to_thread
from botocore.exceptions import BotoCoreError, ClientError

from ...domain.ports.object_store import ObjectInfo, StagingKey
from ...domain.ports.ranged_files import SourceFile
from ...domain.store_errors import ObjectMissing
from .calls import run
from .client import Bucket, LazyClient
from .download import S3StoredObject
from .failures import explained, store_errors
from .lanes import THREADS
from .left_parts import LeftParts
from .plain import PlainRequests
from .stream import BLOCK_BYTES, Answer, answer_of, info_of
from .upload import Upload

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

R = TypeVar("R")

_ANSWERS_WITHOUT_A_REASON = {400, 403, 404, 405, 301, 307}  # to HEAD, which has no body


class S3ObjectStore:
    """Objects of one bucket, by path-style addressing. Its threads are its own."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._client = LazyClient(bucket)
        self._plain = PlainRequests(bucket, self._client)
        self._left = LeftParts(bucket, self._client)
        self._limiter: CapacityLimiter | None = None

    async def head(self, key: StagingKey) -> ObjectInfo:
        def ask(client: "S3Client") -> ObjectInfo:
            plain = self._plain.head(key)
            if plain is not None:
                return plain
            try:
                info = info_of(client.head_object(Bucket=self._bucket.name, Key=key))
            except ClientError as error:
                if _status(error) in _ANSWERS_WITHOUT_A_REASON:
                    self._ask_why(client, key, f"head {key}")
                raise
            self._plain.failed_alone()
            return info

        return await self._call(ask, f"head {key}", key)

    async def open(self, key: StagingKey, known: ObjectInfo | None = None) -> S3StoredObject:
        if known is not None:
            return S3StoredObject(self._client, self._bucket, key, known, self._threads())

        def ask(client: "S3Client") -> tuple[Answer, bytes | None]:
            answer = self._plain.get(key)
            if answer is None:
                answer = answer_of(client.get_object(Bucket=self._bucket.name, Key=key))
                self._plain.failed_alone()
            return answer, answer.read_whole()  # each visit to another thread costs a small object dearly

        operation = f"getting object {key}"
        answer, whole = await self._call(ask, operation, key, discard=lambda late: late[0].body.close())
        first = None if answer.info.size_bytes <= BLOCK_BYTES else answer.stream()
        return S3StoredObject(self._client, self._bucket, key, answer.info, self._threads(), first, whole)

    async def part_size_bytes(self, key: StagingKey, info: ObjectInfo, parts: int) -> int | None:
        def ask(client: "S3Client") -> int | None:
            answer = client.head_object(Bucket=self._bucket.name, Key=key, PartNumber=1)
            size_bytes = int(answer["ContentLength"])
            # A store that does not know part numbers tells the size of the whole.
            return size_bytes if size_bytes and -(-info.size_bytes // size_bytes) == parts else None

        return await self._call(ask, f"head {key}", key)

    async def put(self, key: StagingKey, source: SourceFile) -> None:
        await Upload(self._client, self._bucket, key, source, self._threads(), self._left).run()

    async def delete(self, key: StagingKey) -> None:
        def ask(client: "S3Client") -> None:
            client.delete_object(Bucket=self._bucket.name, Key=key)

        try:
            await self._call(ask, f"deleting object {key}", key)
        except ObjectMissing:  # most stores answer that with success
            return

    async def list_keys(self, prefix: str) -> tuple[StagingKey, ...]:
        def ask(client: "S3Client") -> tuple[StagingKey, ...]:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket.name, Prefix=prefix)
            return tuple(
                sorted(StagingKey(item["Key"]) for page in pages for item in page.get("Contents", []))
            )

        return await self._call(ask, f"listing objects with prefix {prefix}", prefix)

    async def check(self) -> None:
        def ask(client: "S3Client") -> None:
            client.list_objects_v2(Bucket=self._bucket.name, MaxKeys=1)
            self._left.try_again()

        await self._call(ask, "looking at the object store", "")

    async def close(self) -> None:
        await to_thread.run_sync(self._client.close)

    async def _call(
        self,
        ask: "Callable[[S3Client], R]",
        operation: str,
        key: str,
        discard: Callable[[R], object] | None = None,
    ) -> R:
        def work() -> R:
            with store_errors(operation, key=key, where=str(self._bucket)):
                return ask(self._client.get())

        return await run(work, self._threads(), discard)

    def _threads(self) -> CapacityLimiter:
        if self._limiter is None:  # belongs to the event loop it is first used in
            self._limiter = CapacityLimiter(THREADS)
        return self._limiter

    def _ask_why(self, client: "S3Client", key: str, operation: str) -> None:
        """Raise what an answer with a body says: wrong bucket, wrong credentials, clock, region."""
        try:
            client.list_objects_v2(Bucket=self._bucket.name, Prefix=key, MaxKeys=1)
        except (BotoCoreError, ClientError) as error:
            raise explained(error, operation, key=key, where=str(self._bucket)) from error


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
