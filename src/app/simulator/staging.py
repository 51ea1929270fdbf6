"""The frontend's HTTP stager: how it asks a worker for files, sends them and fetches results.

Sources: LocalAI core/services/nodes/{file_stager_http,file_staging_client}.go.
"""

import logging
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

import anyio
import httpx

from ...adapters.memory.frontend_nodes import Generation
from ...domain.errors import MalformedMessage
from ...domain.messages.reading import read_text_list
from .file_http import FileHttp, FileReply, StagingFailed, TransferBroken
from .outgoing_file import OutgoingFile

log = logging.getLogger(__name__)

_FILES = "/v1/files/"
_LISTING = "/v1/files-list/"
_LIMIT_S = 3600.0  # the newer stager's time for one file; the seed one had none

# Between attempts. Upstream's newer stager goes on for its hour; ours gives up after twenty.
_SEED_WAITS_S = (5.0, 10.0, 20.0)
_NEWER_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, *[30.0] * 14)
_RESUMABLE = frozenset({HTTPStatus.PERMANENT_REDIRECT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE})


class Stager(Protocol):
    """Brings files to one worker."""

    async def ensure(self, source: Path, key: str) -> str:
        """Have the worker hold the content of `source` under `key`; its path there.

        Raises:
            FileUnreadable: of `source`.
            WorkerError: the worker does not hold it.
        """

    async def close(self) -> None:
        """Let go of connections; idempotent."""


@dataclass
class HttpStager:
    """A frontend's calls to the file server at `http_address` (`host:port`).

    Every method takes an hour at most and raises StagingFailed, or UnsendableKey for a key of which no
    URL can be made. `waits_s`: the pauses between attempts, None for the generation's. `transport`
    stands in for the network.
    """

    http_address: str
    token: str = field(default="", repr=False)
    generation: Generation = "newer"
    waits_s: tuple[float, ...] | None = None
    transport: httpx.AsyncBaseTransport | None = None
    _http: FileHttp = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._http = FileHttp(self.http_address, self.token, self.transport)

    async def close(self) -> None:
        """Close idle connections; idempotent."""
        await self._http.close()

    async def ensure(self, source: Path, key: str) -> str:
        """Send `source` unless the worker holds its content already, by the hash; the worker's path.

        Raises:
            FileUnreadable: of `source`.
            StagingFailed: refused, or not done after as many attempts as there are waits and one.
        """
        with self._bounded(key):
            file = await OutgoingFile.open(source)
            if held := await self._held(file, key):
                return held
            for wait_s in self._waits_s:
                try:
                    return await self._send(file, key)
                except TransferBroken as error:
                    log.warning("upload failed, next attempt in %g s: %s", wait_s, error)
                    await anyio.sleep(wait_s)
            return await self._send(file, key)

    async def fetch(self, key: str, target: Path) -> int:
        """Store the worker's file `key` as `target`, whole or not at all; its size in bytes."""
        with self._bounded(key):
            return await self._http.download(_FILES, key, target)

    async def fetch_result(self, remote_path: str, target: Path) -> None:
        """Store the worker's file at `remote_path`, which lies flat in its staging directory."""
        await self.fetch(posixpath.basename(remote_path), target)

    async def alloc_temp(self) -> str:
        """Have the worker make an empty file for a result; its path there."""
        with self._bounded("temp"):
            return (await self._http.ask("POST", _FILES, "temp")).local_path()

    async def list_dir(self, prefix: str) -> tuple[str, ...]:
        """The files below the directory `prefix`, relative to it; an empty one may answer null."""
        with self._bounded(prefix):
            reply = await self._http.ask("GET", _LISTING, prefix)
            try:
                return tuple(read_text_list(reply.fields(), "files"))
            except MalformedMessage as error:
                raise StagingFailed(self.http_address, prefix, error.reason) from error

    @property
    def _waits_s(self) -> tuple[float, ...]:
        if self.waits_s is not None:
            return self.waits_s
        return _SEED_WAITS_S if self.generation == "seed" else _NEWER_WAITS_S

    async def _held(self, file: OutgoingFile, key: str) -> str:
        """The worker's path of `key` if its content is ours already, else `""`; a failure counts as no."""
        reply = await self._probe(key)
        sha256 = reply.headers.get("X-Content-SHA256", "") if reply else ""
        if reply is None or reply.status != HTTPStatus.OK or not reply.path_header or not sha256:
            return ""
        return reply.path_header if sha256 == await file.sha256() else ""

    async def _send(self, file: OutgoingFile, key: str) -> str:
        """One upload: the whole file, or what a newer worker says it lacks."""
        headers = {"Content-Type": "application/octet-stream"}
        offset = 0
        if self.generation == "newer":
            offset = await self._offset(file, key)
            headers["X-Content-SHA256"] = await file.sha256()
            if file.size_bytes:
                headers["Content-Range"] = f"bytes {offset}-{file.size_bytes - 1}/{file.size_bytes}"
        if file.size_bytes:  # Go sends an empty file chunked, without a length
            headers["Content-Length"] = str(file.size_bytes - offset)
        reply = await self._http.ask("PUT", _FILES, key, headers=headers, content=file.chunks(offset))
        if self.generation == "newer" and reply.status in _RESUMABLE and "Location" not in reply.headers:
            raise TransferBroken(self.http_address, key, reply.what_it_says)
        return reply.local_path()

    async def _offset(self, file: OutgoingFile, key: str) -> int:
        """How many of the file's first bytes the worker holds of an upload that broke off."""
        reply = await self._probe(key)
        if reply is None or reply.status != HTTPStatus.OK:
            return 0
        if reply.headers.get("X-Target-SHA256", "").lower() != await file.sha256():
            return 0
        size = reply.headers.get("X-File-Size", "")
        held = int(size) if size.isascii() and size.isdigit() and len(size) < 20 else 0
        return held if held < file.size_bytes else 0

    async def _probe(self, key: str) -> FileReply | None:
        try:
            return await self._http.ask("HEAD", _FILES, key)
        except TransferBroken:
            return None

    @contextmanager
    def _bounded(self, key: str) -> Iterator[None]:
        try:
            with anyio.fail_after(_LIMIT_S):
                yield
        except TimeoutError as error:
            raise StagingFailed(self.http_address, key, f"not done within {_LIMIT_S:g} s") from error
