"""An answer to GET or HEAD: what its headers tell of the object, and its body past botocore's wrapper."""

from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import HTTPError

from ...domain.ports.object_store import ObjectInfo

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

BLOCK_BYTES = 512 * 1024


@dataclass
class Stream:
    """An answer being read: its next byte is `at`, its last one lies before `stop`."""

    body: Any  # urllib3's response below botocore's wrapper
    at: int
    stop: int

    def read_into(self, buffer: memoryview) -> int:
        """Put the next bytes into `buffer`, and tell how many; 0 is the end.

        Past urllib3, which would copy them twice.

        Raises:
            OSError: the connection broke.
        """
        try:
            return int(self.body._fp.readinto(buffer))  # noqa: SLF001
        except HTTPException as error:  # of a body in chunks
            raise ConnectionError(str(error)) from error

    def interrupt(self) -> None:
        """End a read that waits in another thread."""
        with suppress(OSError, RuntimeError, ValueError, AttributeError):  # it may have ended by itself
            self.body.shutdown()

    def close(self) -> None:
        """Let go; a connection with bytes left on it is closed, any other goes back to the pool."""
        if self.at < self.stop:
            self.body.close()
        else:
            self.body.release_conn()


def info_of(head: Any) -> ObjectInfo:
    """What the headers of an answer to HEAD or GET tell about the object."""
    size_bytes = int(head.get("ContentLength") or 0)
    if "ContentRange" in head:
        total = str(head["ContentRange"]).rpartition("/")[2]
        size_bytes = int(total) if total.isdigit() else -1
    encrypted = str(head.get("ServerSideEncryption", "")).startswith("aws:") or "SSECustomerAlgorithm" in head
    modified = head.get("LastModified")
    metadata = {name.lower(): text for name, text in head.get("Metadata", {}).items()}  # rclone: `Sha256`
    return ObjectInfo(
        size_bytes=size_bytes,
        etag=str(head.get("ETag", "")).removeprefix("W/").strip('"'),
        modified_s=int(modified.timestamp()) if modified else 0,
        sha256=metadata.get("sha256", "").strip().lower(),
        etag_is_hash=not encrypted,
    )


@dataclass
class Answer:
    """An answer to GET: what it tells of the object, and urllib3's response, of which nothing is read yet."""

    info: ObjectInfo
    body: Any

    def stream(self) -> Stream:
        """The whole object, about to be read."""
        return Stream(self.body, 0, self.info.size_bytes)

    def read_whole(self) -> bytes | None:
        """The content of a small object; None when it is large, or the answer breaks off."""
        if not 0 <= self.info.size_bytes <= BLOCK_BYTES:
            return None
        try:
            content: bytes = self.body.read()
        except (HTTPError, OSError):
            content = b""
        if len(content) != self.info.size_bytes:
            self.body.close()
            return None
        self.body.release_conn()
        return content


def answer_of(got: "GetObjectOutputTypeDef") -> Answer:
    """The same of an answer to the client."""
    return Answer(info_of(got), raw(got))


def raw(answer: "GetObjectOutputTypeDef") -> Any:
    """urllib3's response: botocore's wrapper keeps a second count of bytes, and cannot be interrupted."""
    body: Any = answer["Body"]
    return body._raw_stream  # noqa: SLF001
