"""What interrupted installs left behind: swept, or put back where a backend is missing."""

import logging
from dataclasses import dataclass
from pathlib import Path

from .errors import WorkerError
from .installed import RUN_FILE
from .ports.filesystem import FileKind, FileSystem

log = logging.getLogger(__name__)

# What upstream calls the old version while it puts the new one in place; its next install deletes it.
_UPSTREAM_BACKUPS = (".install-backup", ".backup")


@dataclass
class SweepInstalls:
    """Cleans `backends_path` after workers that were killed, this one's predecessors or upstream's."""

    filesystem: FileSystem
    backends_path: Path

    async def sweep(self) -> None:
        """Remove half-built backends; bring back old versions whose successors never arrived (G-W18).

        What another living worker builds stays. What cannot be done is told and left for the next start.
        """
        try:
            for path in await self.filesystem.sweep_private(self.backends_path):
                log.info("interrupted install swept: path=%s", path)
            await self._bring_back()
        except WorkerError as error:
            log.warning("leftovers of interrupted installs stay: %s", error)

    async def _bring_back(self) -> None:
        """Where upstream was killed between its two renames, only the backup is left of a backend."""
        if await self.filesystem.stat(self.backends_path) is None:
            return
        entries = await self.filesystem.list_directory(self.backends_path)
        names = {entry.name for entry in entries}
        for entry in entries:
            for suffix in _UPSTREAM_BACKUPS:
                target = entry.name.removesuffix(suffix)
                if target == entry.name or target in names or not target:
                    continue
                backup = self.backends_path / entry.name
                run_file = await self.filesystem.stat(backup / RUN_FILE)
                if entry.kind is FileKind.DIRECTORY and run_file is not None and not entry.is_link:
                    await self.filesystem.replace_directory(backup, self.backends_path / target)
                    log.warning("old version brought back after an interrupted install: backend=%s", target)
                    names.add(target)
