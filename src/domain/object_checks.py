"""What tells that an object arrived as it was stored: a hash in its metadata, or one in its ETag."""

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from anyio import CapacityLimiter, create_task_group

from .byte_spans import ByteSpan
from .ports.object_store import ObjectInfo, ObjectStore, StagingKey
from .ports.ranged_files import Algorithm
from .store_errors import StoreFailure

_MD5 = re.compile(r"[0-9a-f]{32}", re.ASCII)
_MULTIPART = re.compile(r"([0-9a-f]{32})-([1-9][0-9]{0,4})", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PARTS_AT_ONCE = 2  # a processor core each; the transfer wants some too


class Digestible(Protocol):
    """A file that can be hashed by ranges."""

    async def digest(self, algorithm: Algorithm, span: ByteSpan) -> bytes:
        """The hash of the bytes of `span`."""


class ObjectDamaged(StoreFailure):
    """The bytes that came are not those that were stored, by their hash."""


@dataclass(frozen=True, slots=True)
class Check:
    """The hash an object must have; `in_parts`: of the hashes of `spans`, as S3 makes it of parts."""

    algorithm: Algorithm
    expected: str
    spans: tuple[ByteSpan, ...]
    in_parts: bool = False

    async def of(self, file: Digestible) -> str:
        """What `file` hashes to, in the form of `expected`."""
        digests = [b""] * len(self.spans)
        slots = CapacityLimiter(_PARTS_AT_ONCE)

        async def hash_part(number: int) -> None:
            async with slots:
                digests[number] = await file.digest(self.algorithm, self.spans[number])

        async with create_task_group() as tasks:
            for number in range(len(self.spans)):
                tasks.start_soon(hash_part, number)
        return self._combined(digests)

    def _combined(self, digests: list[bytes]) -> str:
        if not self.in_parts:
            return digests[0].hex()
        combined = hashlib.new(self.algorithm, b"".join(digests), usedforsecurity=False).hexdigest()
        return f"{combined}-{len(digests)}"

    async def verify(self, file: Digestible, operation: str) -> None:
        """Return if `file` has the expected hash.

        Raises:
            ObjectDamaged: it has not.
        """
        self._require(await self.of(file), operation)

    def verify_content(self, content: bytes, operation: str) -> None:
        """As `verify`, of a file that is in memory. Blocks while it hashes."""
        digests = [
            hashlib.new(self.algorithm, memoryview(content)[span.start : span.stop], usedforsecurity=False)
            for span in self.spans
        ]
        self._require(self._combined([each.digest() for each in digests]), operation)

    def _require(self, found: str, operation: str) -> None:
        if found != self.expected:
            reason = (
                f"{self.algorithm} mismatch: the store says {self.expected}, what came has {found}; upload"
                " the object again, or set LOCALAI_STORAGE_VERIFY=false if this store's ETags are no hashes"
            )
            raise ObjectDamaged(operation, reason)


def parts_of(info: ObjectInfo) -> int | None:
    """In how many parts an object was uploaded, by its ETag; None where the ETag tells none."""
    found = _MULTIPART.fullmatch(info.etag) if info.etag_is_hash else None
    return int(found[2]) if found else None


def check_of(info: ObjectInfo, part_bytes: int | None = None) -> Check | None:
    """How to check an object; None where nothing is known. `part_bytes`: the size of its parts."""
    whole = (ByteSpan(0, info.size_bytes),)
    if _SHA256.fullmatch(info.sha256):
        return Check("sha256", info.sha256, whole)
    if not info.etag_is_hash:
        return None
    if _MD5.fullmatch(info.etag):
        return Check("md5", info.etag, whole)
    if parts_of(info) and part_bytes:
        spans = tuple(
            ByteSpan(start, min(start + part_bytes, info.size_bytes))
            for start in range(0, info.size_bytes, part_bytes)
        )
        return Check("md5", info.etag, spans, in_parts=True)
    return None


async def find_check(store: ObjectStore, key: StagingKey, info: ObjectInfo) -> Check | None:
    """As `check_of`, asking `store` for the size of parts where there are some."""
    parts = parts_of(info)
    part_bytes = info.size_bytes if parts == 1 else None
    if parts and parts > 1:
        part_bytes = await store.part_size_bytes(key, info, parts)
    return check_of(info, part_bytes)
