"""One bucket of one S3 endpoint, and the boto3 client for it: made when it is first used, as that is slow."""

import ipaddress
import threading
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .calls import watch
from .lanes import THREADS

if TYPE_CHECKING:
    from boto3.session import Session
    from types_boto3_s3 import S3Client

CONNECT_S = 5.0
READ_S = 30.0  # between two bytes
ATTEMPTS = 3  # as the AWS SDKs


@dataclass(frozen=True)
class Bucket:
    """Where objects are kept. Without both keys the default chain of AWS applies. `endpoint` has a scheme."""

    endpoint: str
    name: str
    region: str = "us-east-1"
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    connect_s: float = CONNECT_S
    read_s: float = READ_S

    def __str__(self) -> str:
        shown = urlsplit(self.endpoint)
        port = f":{shown.port}" if shown.port else ""
        return f'bucket "{self.name}" at {shown.scheme}://{shown.hostname}{port}'


class LazyClient:
    """The boto3 client of a bucket, made by the first thread that asks and then shared."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self._client: S3Client | None = None

    def get(self) -> "S3Client":
        """The client; blocks while it is made."""
        with self._lock:
            if self._client is None:
                self._client = _make_client(self._bucket)
                watch(self._client)
            return self._client

    def close(self) -> None:
        """Close idle connections; idempotent."""
        with self._lock:
            if self._client is not None:
                self._client.close()


def _make_client(bucket: Bucket) -> "S3Client":
    from botocore.config import Config

    options: dict[str, Any] = {"proxies": {}} if is_loopback(bucket.endpoint) else {}
    config = Config(
        s3={"addressing_style": "path"},
        connect_timeout=bucket.connect_s,
        read_timeout=bucket.read_s,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=THREADS,
        tcp_keepalive=True,
        # Integrity is checked by ETag and hash; the SDK's own checksums many compatible stores do not know.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **options,
    )
    if bucket.access_key and bucket.secret_key:
        options = {"aws_access_key_id": bucket.access_key, "aws_secret_access_key": bucket.secret_key}
    else:
        options = {}
    with _making:
        return _session().client(
            "s3",
            region_name=bucket.region,
            endpoint_url=bucket.endpoint.rstrip("/"),
            config=config,
            **options,
        )


_making = threading.Lock()  # sessions are not for several threads at once


@cache
def _session() -> "Session":
    """One for the process: it keeps the description of S3, which takes longest to load."""
    from boto3.session import Session

    return Session()


def is_loopback(endpoint: str) -> bool:
    """Whether `endpoint` is on this machine: no proxy could reach it."""
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
