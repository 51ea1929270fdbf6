"""Free space on the disk: asked for before the first byte, and kept for others while bytes come."""

from dataclasses import dataclass
from pathlib import Path

from .errors import NoSpace
from .ports.filesystem import FileSystem

_EVERY_BYTES = 32 << 20


@dataclass
class DiskRoom:
    """The disk of `path` must keep `floor_bytes` free. For one writer each."""

    filesystem: FileSystem
    path: Path
    floor_bytes: int
    _written_bytes: int = 0

    async def require(self, wanted_bytes: int, what: str) -> None:
        """Raise NoSpace unless `wanted_bytes` fit above the floor; a disk that tells nothing has room."""
        space = await self.filesystem.space(self.path)
        missing_bytes = 0 if space is None else wanted_bytes + self.floor_bytes - space.available_bytes
        if missing_bytes > 0:
            floor = f"{self.floor_bytes} must stay free (LOCALAI_WORKER_DISK_FLOOR)"
            raise NoSpace(
                self.path, f"{what} takes {wanted_bytes} bytes, {floor}, {missing_bytes} are missing"
            )

    async def wrote(self, size_bytes: int) -> None:
        """Count what was written, and look at the floor now and then."""
        self._written_bytes += size_bytes
        if self._written_bytes >= _EVERY_BYTES:
            self._written_bytes = 0
            await self.require(0, "what was begun")
