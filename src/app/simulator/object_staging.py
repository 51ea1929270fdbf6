"""The frontend's stager with an object store: it puts objects there and asks the worker over the bus.

Sources: LocalAI core/services/nodes/file_stager_s3.go, core/services/storage/file_manager.go.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import anyio

from ...domain.errors import FileUnreadable, WorkerError
from ...domain.messages.files import (
    FilesEnsureReply,
    FilesEnsureRequest,
    FilesListdirReply,
    FilesListdirRequest,
    FilesStageReply,
    FilesStageRequest,
    FilesTempReply,
)
from ...domain.messages.subjects import NodeSubjects
from ...domain.messages.writing import EMPTY_REQUEST
from ...domain.ports.filesystem import RootedPath
from ...domain.ports.object_store import ObjectStore, StagingKey
from ...domain.ports.ranged_files import RangedFiles
from .failures import CommandRefused

TRANSFER_S = 600.0
ASK_S = 30.0


class Ask(Protocol):
    """Sends a request over the bus."""

    def __call__(self, subject: str, payload: bytes, *, timeout_s: float) -> Awaitable[bytes]:
        """The reply to `payload`."""


@dataclass
class ObjectStager:
    """Brings files to one worker through `store`, and results back. As upstream, it never looks whether an
    object that is there has the content of the local file: who changes a model changes the object.

    Methods raise what the store and the bus raise, and CommandRefused with the worker's text.
    """

    store: ObjectStore
    ranged: RangedFiles
    subjects: NodeSubjects
    ask: Ask

    async def ensure(self, source: Path, key: str) -> str:
        """Put the object where it is missing and have the worker fetch it; the worker's path."""
        if not await self._exists(StagingKey(key)):
            await self.put(source, key)
        subject = self.subjects.files_ensure
        answer = await self.ask(subject, FilesEnsureRequest(key=key).to_wire(), timeout_s=TRANSFER_S)
        reply = FilesEnsureReply.from_wire(answer)
        return _told(subject, reply.error, reply.local_path)

    async def put(self, source: Path, key: str) -> None:
        """Store the local file, whatever is there."""
        opened = await self.ranged.open_source(RootedPath(source.parent, PurePosixPath(source.name)))
        if opened is None:
            raise FileUnreadable(source, "no such file")
        try:
            await self.store.put(StagingKey(key), opened)
        finally:
            with anyio.CancelScope(shield=True):
                await opened.close()

    async def fetch_result(self, remote_path: str, target: Path) -> None:
        """Have the worker stage its file, store it as `target`, and delete the object."""
        await self._fetch(remote_path, f"ephemeral/fetch/{remote_path}/output", target)

    async def fetch_by_key(self, key: str, target: Path) -> None:
        """As `fetch`, for a file below the worker's `models` or `data`."""
        await self._fetch(f"/{key}", key, target)

    async def alloc_temp(self) -> str:
        """Have the worker make an empty file for a result; its path there."""
        subject = self.subjects.files_temp
        reply = FilesTempReply.from_wire(await self.ask(subject, EMPTY_REQUEST, timeout_s=ASK_S))
        return _told(subject, reply.error, reply.local_path)

    async def list_dir(self, prefix: str) -> tuple[str, ...]:
        """The files below the directory `prefix`, relative to it."""
        subject = self.subjects.files_listdir
        answer = await self.ask(subject, FilesListdirRequest(key_prefix=prefix).to_wire(), timeout_s=ASK_S)
        reply = FilesListdirReply.from_wire(answer)
        _told(subject, reply.error, "")
        return reply.files

    async def close(self) -> None:
        """Nothing to let go of: store and bus are the frontend's."""

    async def _exists(self, key: StagingKey) -> bool:
        try:
            await self.store.head(key)
        except WorkerError:  # as upstream: whatever goes wrong counts as no
            return False
        return True

    async def _fetch(self, remote_path: str, key: str, target: Path) -> None:
        subject = self.subjects.files_stage
        request = FilesStageRequest(local_path=remote_path, key=key)
        reply = FilesStageReply.from_wire(await self.ask(subject, request.to_wire(), timeout_s=TRANSFER_S))
        _told(subject, reply.error, reply.key)
        stored = await self.store.open(StagingKey(key))
        try:
            place = RootedPath(target.parent, PurePosixPath(target.name))
            size_bytes = stored.info.size_bytes
            file = await self.ranged.assemble(place, version=stored.info.version, size_bytes=size_bytes)
            try:
                await stored.copy_to(file)
                await file.publish()
                await file.settle()
            finally:
                with anyio.CancelScope(shield=True):
                    await file.discard()
        finally:
            with anyio.CancelScope(shield=True):
                await stored.close()
        await self.store.delete(StagingKey(key))


def _told(subject: str, error: str, result: str) -> str:
    if error:
        raise CommandRefused(subject, error)
    return result
