"""What the file routes do, in the service's terms."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import Response

from ...domain.receive_files import ProbedFile, ReceiveFiles
from .byte_range import Unsatisfiable, parse_range
from .replies import (
    OutgoingReply,
    json_reply,
    local_path_reply,
    method_not_allowed,
    more_to_come_reply,
    no_such_range_reply,
    text_reply,
)
from .request import FileRequest

TEMPORARY_KEY = "temp"


@dataclass(frozen=True)
class FileEndpoints:
    """`/v1/files/{key}` and `/v1/files-list/{key}`."""

    files: ReceiveFiles

    async def file(self, request: FileRequest) -> Response:
        """HEAD, GET and PUT of a file; POST of the key `temp` makes an empty one."""
        match request.method:
            case "HEAD":
                return await self._head(request)
            case "GET":
                return await self._get(request)
            case "PUT":
                return await self._put(request)
            case "POST":
                return await self._post(request)
        return method_not_allowed("GET", "HEAD", "POST", "PUT")

    async def listing(self, request: FileRequest) -> Response:
        """GET of the names below a directory."""
        if request.method != "GET":
            return method_not_allowed("GET")
        paths = await self.files.list_files(request.key)
        if paths is None:
            return text_reply(404, "directory not found")
        return json_reply(json.dumps({"files": [str(path) for path in paths]}).encode())

    async def _head(self, request: FileRequest) -> Response:
        probed = await self.files.probe(request.key)
        return text_reply(404, "file not found") if probed is None else _probe_reply(probed)

    async def _get(self, request: FileRequest) -> Response:
        outgoing = await self.files.send(request.key)
        if outgoing is None:
            return text_reply(404, "file not found")
        if "if-range" in request.headers:  # we name no version that it could match
            return OutgoingReply(outgoing, None)
        try:
            return OutgoingReply(outgoing, parse_range(request.headers.get("range"), outgoing.size_bytes))
        except Unsatisfiable:
            await outgoing.close()
            return no_such_range_reply(outgoing.size_bytes)

    async def _put(self, request: FileRequest) -> Response:
        upload = await self.files.receive(
            request.key,
            declared_sha256=request.headers.get("x-content-sha256"),
            length_bytes=request.content_length,
            content_range=request.headers.get("content-range"),
        )
        if isinstance(upload, Path):
            return local_path_reply(upload)
        try:
            await request.body.pour_into(upload)
            path = await upload.finish()
            return more_to_come_reply(upload.size_bytes) if path is None else local_path_reply(path)
        finally:
            await upload.abort()
            self.files.ended(upload)

    async def _post(self, request: FileRequest) -> Response:
        if request.key != TEMPORARY_KEY:
            return text_reply(404, "not found")
        return local_path_reply(await self.files.new_temporary())


async def unknown_path(request: FileRequest) -> Response:
    """The answer to every path that is no route of ours."""
    del request
    return text_reply(404, "404 page not found")


def _probe_reply(probed: ProbedFile) -> Response:
    """Size, hash and path in headers, as the frontend's stager compares them before it uploads.

    The path is sent as the bytes it has on disk. One that a header cannot carry unchanged is left out,
    and then the stager uploads and reads the path from the answer's JSON; upstream garbles it instead.
    """
    reply = Response(
        headers={"content-length": str(probed.size_bytes), "x-file-size": str(probed.size_bytes)}
    )
    text, path = str(probed.path), os.fsencode(probed.path)
    if text == text.strip() and not any(byte < 0x20 or byte == 0x7F for byte in path):
        reply.raw_headers.append((b"x-local-path", path))
    reply.headers["accept-ranges"] = "bytes"
    if probed.target_sha256 is not None:
        reply.raw_headers.append((b"x-target-sha256", probed.target_sha256.encode()))
    if probed.sha256 is not None:
        reply.raw_headers.append((b"x-content-sha256", probed.sha256.encode()))
    return reply
