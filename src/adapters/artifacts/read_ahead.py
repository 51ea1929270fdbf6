"""Reading ahead in a thread: hashing and decompressing go on while files are written."""

import queue
import threading

from .streams import CHUNK_BYTES, ByteReader

_WAIT_S = 0.1


class ReadAhead:
    """The bytes of `source`, read by a thread of its own, a few chunks ahead. Close it.

    What the source raises is raised by the read that would have returned its bytes.
    """

    def __init__(self, source: ByteReader, *, chunks: int = 16) -> None:
        self._source = source
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(chunks)
        self._chunk, self._at = b"", 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="read-ahead", daemon=True)
        self._thread.start()

    def read(self, size: int, /) -> bytes:
        at, end = self._at, self._at + size
        if at >= len(self._chunk):
            chunk = self._chunks.get()
            if isinstance(chunk, BaseException) or not chunk:
                self._chunks.put(chunk)  # whoever reads on gets it again
                if isinstance(chunk, BaseException):
                    raise chunk
                return b""
            self._chunk, at, end = chunk, 0, size
        self._at = end
        # Slices are cut from the chunk as they are wanted: there are many small ones.
        return self._chunk if at == 0 and end >= len(self._chunk) else self._chunk[at:end]

    def close(self) -> None:
        """End the thread; the source is read no further."""
        self._closed.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            while chunk := self._source.read(CHUNK_BYTES):
                if not self._offer(chunk):
                    return
            self._offer(b"")
        except BaseException as error:  # noqa: BLE001 - raised again by the reader
            self._offer(error)

    def _offer(self, item: bytes | BaseException) -> bool:
        while not self._closed.is_set():
            try:
                self._chunks.put(item, timeout=_WAIT_S)
            except queue.Full:
                continue
            return True
        return False
