"""Where the frames of a zstd stream end, which its decompressor does not tell.

Source: RFC 8878, section 3.1.
"""

from collections.abc import Callable

_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50  # and the fifteen that follow
_MAGIC_BYTES = 4
_BLOCK_HEADER_BYTES = 3
_RLE = 1  # a block of one byte, repeated


class ZstdFrames:
    """Follows a stream from frame to frame by their headers; the content is not looked at.

    What is no zstd at all is left to the decompressor, which refuses it.
    """

    def __init__(self) -> None:
        self._skip = 0  # bytes of content until the next header
        self._header = bytearray()
        self._wanted = _MAGIC_BYTES
        self._next: Callable[[bytes], None] = self._begin_frame
        self._has_checksum = False
        self._is_lost = False

    @property
    def is_whole(self) -> bool:
        """Whether what came so far ends with a frame."""
        between = self._next == self._begin_frame and not self._header and not self._skip
        return between or self._is_lost

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the stream."""
        at = 0
        while at < len(chunk) and not self._is_lost:
            if self._skip:
                step = min(self._skip, len(chunk) - at)
                self._skip -= step
            else:
                step = min(self._wanted - len(self._header), len(chunk) - at)
                self._header += chunk[at : at + step]
                if len(self._header) == self._wanted:
                    header = bytes(self._header)
                    self._header.clear()
                    self._next(header)
            at += step

    def _expect(self, size: int, then: Callable[[bytes], None]) -> None:
        self._wanted, self._next = size, then

    def _begin_frame(self, header: bytes) -> None:
        magic = int.from_bytes(header, "little")
        if magic == _MAGIC:
            self._expect(1, self._describe)
        elif magic & ~0xF == _SKIPPABLE:
            self._expect(4, self._skip_frame)
        else:
            self._is_lost = True

    def _skip_frame(self, header: bytes) -> None:
        self._skip = int.from_bytes(header, "little")
        self._expect(_MAGIC_BYTES, self._begin_frame)

    def _describe(self, header: bytes) -> None:
        (descriptor,) = header
        is_single_segment = bool(descriptor & 0x20)
        self._has_checksum = bool(descriptor & 0x04)
        size_field = (1 if is_single_segment else 0, 2, 4, 8)[descriptor >> 6]
        self._skip = (0 if is_single_segment else 1) + (0, 1, 2, 4)[descriptor & 0x03] + size_field
        self._expect(_BLOCK_HEADER_BYTES, self._begin_block)

    def _begin_block(self, header: bytes) -> None:
        value = int.from_bytes(header, "little")
        is_last, kind, size = value & 1, value >> 1 & 0x03, value >> 3
        self._skip = 1 if kind == _RLE else size
        if is_last:
            self._skip += 4 if self._has_checksum else 0
            self._expect(_MAGIC_BYTES, self._begin_frame)
