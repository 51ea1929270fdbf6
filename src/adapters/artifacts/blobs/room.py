"""Free space: asked for before the first byte, and kept while bytes are written."""

import os
from dataclasses import dataclass
from pathlib import Path

from ....domain.errors import NoSpace

_EVERY_BYTES = 32 << 20


@dataclass
class Room:
    """The file system of `path` must keep `floor_bytes` free for others. For one thread each."""

    path: Path
    floor_bytes: int
    _written_bytes: int = 0

    def require(self, wanted_bytes: int, what: str) -> None:
        """Raise NoSpace unless `wanted_bytes` fit above the floor."""
        missing_bytes = wanted_bytes + self.floor_bytes - self.free_bytes()
        if missing_bytes > 0:
            raise NoSpace(
                self.path,
                f"{what} takes about {_mib(wanted_bytes)}, {_mib(self.floor_bytes)} must stay free "
                f"(LOCALAI_WORKER_DISK_FLOOR), and {_mib(missing_bytes)} are missing",
            )

    def wrote(self, size_bytes: int) -> None:
        """Count what was written, and look at the floor now and then."""
        self._written_bytes += size_bytes
        if self._written_bytes >= _EVERY_BYTES:
            self._written_bytes = 0
            self.require(0, "what was begun")

    def free_bytes(self) -> int:
        """What this process may still write."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.1f} MiB"
