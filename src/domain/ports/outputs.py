"""The output files of backends: they append, the worker reads what is new and keeps the files small (D4)."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class NewOutput:
    """What was appended to `path`; `skipped_bytes` came before `data` and are left out."""

    path: Path
    data: bytes
    skipped_bytes: int = 0


def full_part(path: Path) -> Path:
    """Where the last full part of an output file lies."""
    return path.with_name(path.name + ".1")


class OutputFiles(Protocol):
    """Follows any number of output files.

    A followed file that has reached the limit is copied to its `full_part`, in place of what was there, and
    emptied; the backend's own descriptor stays good. Of output that comes faster than it is read the oldest
    part is left out. A file that cannot be read is logged once and followed no more.
    """

    def follow(self, path: Path, *, replay_bytes: int) -> None:
        """Watch `path` from `replay_bytes` before its end on; one that is not there yet is waited for.

        Following it again begins anew.
        """

    async def news(self) -> tuple[NewOutput, ...]:
        """Wait until followed files have grown, and return what is new in each."""

    async def finish(self, path: Path) -> NewOutput:
        """Stop following `path` and return what `news` had not told yet; nothing of one not followed."""

    async def prune(self, directory: Path, *, keep: Collection[Path], limit_bytes: int) -> None:
        """Remove the files of `directory` that were written to longest ago until all take `limit_bytes`.

        Those in `keep` and followed ones count but stay. A missing directory is fine.
        """
