"""GET and HEAD in the plain case, at a third of what a call of boto3's client costs.

They are signed and sent by botocore's own parts, so credentials and their renewal, TLS, proxies and the pool
of connections are the client's. What is left out are its serializers, parsers and some thirty event handlers:
a millisecond of processor time for each small object.
"""

import threading
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from ...domain.ports.object_store import ObjectInfo, StagingKey
from .client import Bucket, LazyClient
from .stream import Answer

_FAILURES = 3  # in a row that were none for the client: then something here is not plain
_OK = 200


class PlainRequests:
    """Requests that either get the plain answer or None.

    None means: ask the client, which tries again, follows the bucket to its region, and says what is wrong.
    Where the client gets answers and a plain request never does, none is made any more.
    """

    def __init__(self, bucket: Bucket, client: LazyClient) -> None:
        self._bucket, self._client = bucket, client
        self._lock = threading.Lock()
        self._failures = 0

    def head(self, key: StagingKey) -> ObjectInfo | None:
        """What is stored under `key`. Blocks."""
        answer = self._ask("HEAD", key)
        if answer is None:
            return None
        answer.body.release_conn()
        return answer.info

    def get(self, key: StagingKey) -> Answer | None:
        """The object under `key`, about to be read. Blocks."""
        return self._ask("GET", key)

    def failed_alone(self) -> None:
        """The client got an answer where a plain request had none."""
        with self._lock:
            self._failures += 1

    def _ask(self, method: str, key: StagingKey) -> Answer | None:
        client: Any = self._client.get()  # its types leave out what it is made of
        if self._failures >= _FAILURES or client.meta.config.signature_version != "s3v4" or not key:
            return None
        try:
            answer = self._send(client, method, key)
        except (BotoCoreError, HTTPError, OSError):  # of no consequence: the client will meet it too
            return None
        info = info_of(answer.headers) if answer.status_code == _OK else None
        if info is None:
            answer.raw.close()
            return None
        self._failures = 0
        return Answer(info, answer.raw)

    def _send(self, client: Any, method: str, key: StagingKey) -> Any:
        url = f"{client.meta.endpoint_url}/{quote(self._bucket.name, safe='')}/{quote(key, safe='/~')}"
        agent = client.meta.config.user_agent
        request = AWSRequest(method, url, headers={"User-Agent": agent}, stream_output=method == "GET")
        signer = client._request_signer  # noqa: SLF001
        signer.get_auth_instance("s3", client.meta.region_name, "s3v4").add_auth(request)
        return client._endpoint.http_session.send(request.prepare())  # noqa: SLF001


def info_of(headers: Any) -> ObjectInfo | None:
    """What the headers of a plain answer tell; None where they are not plain."""
    length, etag = headers.get("Content-Length", ""), headers.get("ETag", "")
    try:
        modified_s = int(parsedate_to_datetime(headers["Last-Modified"]).timestamp())
    except (KeyError, ValueError):
        return None
    if not length.isdigit() or not etag:
        return None
    encrypted = str(headers.get("x-amz-server-side-encryption", "")).startswith("aws:")
    return ObjectInfo(
        size_bytes=int(length),
        etag=etag.removeprefix("W/").strip('"'),
        modified_s=modified_s,
        sha256=headers.get("x-amz-meta-sha256", "").strip().lower(),
        etag_is_hash=not encrypted and "x-amz-server-side-encryption-customer-algorithm" not in headers,
    )
