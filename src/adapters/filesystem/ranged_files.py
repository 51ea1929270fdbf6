"""Files written and read by ranges on this machine."""

import os
from collections.abc import Callable
from pathlib import Path

from anyio import to_thread

from ...domain.ports.filesystem import RootedPath
from .assembled_file import LocalAssembledFile
from .failures import means_absent, reading
from .hidden_file import kept_version
from .settling import Settler
from .source_file import LocalSourceFile
from .whole_file import LocalWholeFile


class LocalRangedFiles:
    """`RangedFiles` on this machine."""

    def __init__(self) -> None:
        self._settler = Settler()

    async def assemble(self, place: RootedPath, *, version: str, size_bytes: int) -> LocalAssembledFile:
        return await to_thread.run_sync(LocalAssembledFile, place, version, size_bytes, self._settler)

    async def put_whole(
        self, place: RootedPath, content: bytes, approve: Callable[[bytes], None]
    ) -> LocalWholeFile:
        return await to_thread.run_sync(LocalWholeFile, place, content, approve, self._settler)

    async def kept(self, place: RootedPath) -> str | None:
        return await to_thread.run_sync(kept_version, place)

    async def open_source(self, place: RootedPath) -> LocalSourceFile | None:
        return await to_thread.run_sync(_open_source, place)

    async def real_paths(self, *paths: Path) -> tuple[Path, ...]:
        return await to_thread.run_sync(_real_paths, paths)


def _real_paths(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(Path(os.path.realpath(path)) for path in paths)


def _open_source(place: RootedPath) -> LocalSourceFile | None:
    with reading(place.path):
        try:
            return LocalSourceFile(place)
        except (OSError, ValueError) as error:
            if means_absent(error):
                return None
            raise
