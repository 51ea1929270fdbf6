"""Archives in memory: JSON objects of texts by name."""

import json
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...domain.errors import ArtifactInvalid
from ...domain.ports.filesystem import FileSystem, RootedPath

_LIMIT_BYTES = 1 << 24


@dataclass
class InMemoryArchives:
    """An `ArchiveUnpacker` of such archives in `filesystem`, whatever their extension says."""

    filesystem: FileSystem

    async def unpack(self, archive: RootedPath) -> None:
        path = archive.path
        try:
            entries = json.loads(await self.filesystem.read(path, limit_bytes=_LIMIT_BYTES))
            files = {PurePosixPath(name): str(text).encode() for name, text in entries.items()}
        except (ValueError, AttributeError) as error:
            raise ArtifactInvalid(str(path), f"it is no sound archive: {error}") from error
        for name in files:
            if name.is_absolute() or ".." in name.parts or not name.parts:
                raise ArtifactInvalid(str(path), f"{str(name)!r} is no relative path")
        for name, content in files.items():
            await self.filesystem.make_directory((path.parent / name).parent)
            await self.filesystem.write(path.parent / name, content)
