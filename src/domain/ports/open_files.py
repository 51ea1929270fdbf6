"""Which files the processes of this machine use."""

from pathlib import Path
from typing import Protocol


class OpenFiles(Protocol):
    """What is open, or mapped into memory, by any process that we may look at; ourselves included."""

    async def among(self, paths: frozenset[Path]) -> frozenset[Path]:
        """Those of `paths` that a process has open or mapped; none where the machine cannot tell."""
