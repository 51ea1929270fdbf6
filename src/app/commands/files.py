"""Commands about files in an object store: fetch, send, make room, list."""

from dataclasses import dataclass

from ...domain.messages.files import (
    FilesEnsureReply,
    FilesEnsureRequest,
    FilesListdirReply,
    FilesListdirRequest,
    FilesStageReply,
    FilesStageRequest,
    FilesTempReply,
)
from ...domain.object_cache import ObjectCache
from ...domain.stage_files import StageFiles


@dataclass
class FileCommands:
    """Handles the four `files.*` requests, side by side; what several ask for is fetched once (S-K10)."""

    cache: ObjectCache
    staging: StageFiles

    async def ensure(self, request: FilesEnsureRequest) -> FilesEnsureReply:
        """Have the object here, as it is in the store now."""
        return FilesEnsureReply(local_path=str(await self.cache.ensure(request.key)))

    async def stage(self, request: FilesStageRequest) -> FilesStageReply:
        """Upload a file of this node."""
        await self.staging.stage(request.local_path, request.key)
        return FilesStageReply(key=request.key)

    async def temp(self, _asked: None) -> FilesTempReply:
        """An empty file for a result."""
        return FilesTempReply(local_path=str(await self.staging.new_temporary()))

    async def listdir(self, request: FilesListdirRequest) -> FilesListdirReply:
        """What lies below a directory of this node."""
        return FilesListdirReply(files=tuple(map(str, await self.staging.list_files(request.key_prefix))))
