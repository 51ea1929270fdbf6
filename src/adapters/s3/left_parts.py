"""Uploads in parts that broke off and could not be given up yet: the store keeps, and bills, the parts."""

import logging
import threading

from botocore.exceptions import BotoCoreError, ClientError

from ...domain.ports.object_store import StagingKey
from .client import Bucket, LazyClient
from .failures import code_of

log = logging.getLogger(__name__)


class LeftParts:
    """Gives up uploads of one bucket: at once, or when the store answers again."""

    def __init__(self, bucket: Bucket, client: LazyClient) -> None:
        self._bucket, self._client = bucket, client
        self._lock = threading.Lock()
        self._left: set[tuple[StagingKey, str]] = set()

    def give_up(self, key: StagingKey, upload_id: str) -> None:
        """Abort an upload; where that fails, it is kept in mind. Blocks."""
        with self._lock:
            self._left.add((key, upload_id))
        self._abort(key, upload_id)

    def try_again(self) -> None:
        """Abort what could not be aborted before, until the store does not answer. Blocks."""
        with self._lock:
            left = tuple(self._left)
        for key, upload_id in left:
            if not self._abort(key, upload_id):
                return  # the rest would wait for the same silence, one after the other

    def _abort(self, key: StagingKey, upload_id: str) -> bool:
        """Whether the store answered."""
        try:
            self._client.get().abort_multipart_upload(Bucket=self._bucket.name, Key=key, UploadId=upload_id)
        except (BotoCoreError, ClientError, OSError) as error:
            if not isinstance(error, ClientError) or code_of(error) != "NoSuchUpload":
                log.warning("parts are left in %s: key=%s error=%s", self._bucket, key, error)
                return isinstance(error, ClientError)
        with self._lock:
            self._left.discard((key, upload_id))
        return True
