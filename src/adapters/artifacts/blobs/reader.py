"""A blob read from its front while its parts come in."""

import hashlib

from ..web.flight import Flight
from .shared_blob import SharedBlob

_WAIT_S = 0.5  # whatever came until then is read; the end of the flight is told at once


class BlobReader:
    """The bytes of `blob` in order; a read waits for them as long as the flight goes on."""

    def __init__(self, blob: SharedBlob, flight: Flight) -> None:
        self.blob = blob
        self.edition = blob.edition
        self._flight = flight
        self._position = 0

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, b"" at the end.

        Raises:
            FetchCut: the flight is over; its failure says why.
        """
        while True:
            self._flight.check()
            chunk = self.blob.read(self._position, size, wait_s=_WAIT_S, is_over=self._flight.is_over)
            if chunk is not None:
                self._position += len(chunk)
                return chunk


def digest_held(blob: SharedBlob) -> str:
    """The digest of what is there of a blob, of the kind its name is; "" where it is not whole, or where its
    name is none.
    """
    algorithm = blob.digest.partition(":")[0]
    if blob.missing_bytes or algorithm not in hashlib.algorithms_guaranteed:
        return ""
    found, position = hashlib.new(algorithm), 0
    while chunk := blob.read(position, 1 << 20, wait_s=0):
        found.update(chunk)
        position += len(chunk)
    return f"{algorithm}:{found.hexdigest()}"
