"""Which hash an object must have."""

import hashlib

import pytest

from localai_worker.domain.byte_spans import ByteSpan
from localai_worker.domain.object_checks import Check, ObjectDamaged, check_of, parts_of
from localai_worker.domain.ports.object_store import ObjectInfo
from localai_worker.domain.ports.ranged_files import Algorithm

CONTENT = bytes(range(200))
MD5 = hashlib.md5(CONTENT).hexdigest()


class Bytes:
    async def digest(self, algorithm: Algorithm, span: ByteSpan) -> bytes:
        return hashlib.new(algorithm, CONTENT[span.start : span.stop]).digest()


def info(etag: str, *, sha256: str = "", is_hash: bool = True) -> ObjectInfo:
    return ObjectInfo(len(CONTENT), etag, 0, sha256, is_hash)


def multipart_etag(part_bytes: int) -> str:
    digests = [
        hashlib.md5(CONTENT[at : at + part_bytes]).digest() for at in range(0, len(CONTENT), part_bytes)
    ]
    return f"{hashlib.md5(b''.join(digests)).hexdigest()}-{len(digests)}"


async def test_a_plain_etag_is_the_md5_of_the_content() -> None:
    check = check_of(info(MD5))
    assert check is not None
    await check.verify(Bytes(), "getting")
    check.verify_content(CONTENT, "getting")
    with pytest.raises(ObjectDamaged, match="getting: md5 mismatch"):
        check.verify_content(b"x" + CONTENT[1:], "getting")


@pytest.mark.parametrize("part_bytes", [7, 100, 200, 1000])
async def test_the_etag_of_an_upload_in_parts_is_a_hash_of_hashes(part_bytes: int) -> None:
    etag = multipart_etag(part_bytes)
    assert parts_of(info(etag)) == int(etag.rpartition("-")[2])
    check = check_of(info(etag), part_bytes)
    assert check is not None
    assert await check.of(Bytes()) == etag
    await check.verify(Bytes(), "getting")
    check.verify_content(CONTENT, "getting")
    with pytest.raises(ObjectDamaged, match="md5 mismatch"):
        check.verify_content(CONTENT[:-1] + b"x", "getting")


async def test_a_hash_in_the_metadata_comes_first() -> None:
    wrong = info(MD5, sha256=hashlib.sha256(b"other").hexdigest())
    check = check_of(wrong)
    assert check is not None
    with pytest.raises(ObjectDamaged, match="getting: sha256 mismatch"):
        await check.verify(Bytes(), "getting")
    assert check_of(info("", sha256=hashlib.sha256(CONTENT).hexdigest(), is_hash=False)) == Check(
        "sha256", hashlib.sha256(CONTENT).hexdigest(), (ByteSpan(0, 200),)
    )


@pytest.mark.parametrize(
    "unknown",
    [
        info("opaque"),
        info("", sha256="short"),
        info(MD5, is_hash=False),
        info(multipart_etag(7), is_hash=False),
        info(multipart_etag(7)),
    ],
)
def test_nothing_is_checked_where_nothing_is_known(unknown: ObjectInfo) -> None:
    assert check_of(unknown) is None
