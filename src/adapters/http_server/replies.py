"""The answers of the file routes, in the forms their clients know."""

import json
from pathlib import Path

from anyio import CancelScope
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ...domain.content_range import InvalidContentRange
from ...domain.errors import NoSpace, PathEscapes, WorkerError
from ...domain.ports.filesystem import OutgoingFile
from ...domain.upload_errors import (
    BodyTooLong,
    BodyTooShort,
    HashMismatch,
    InvalidHash,
    NamesDirectory,
    OtherUploadHeld,
    RangeNotHeld,
    SidecarRefused,
    UploadTooLarge,
)
from ...domain.validate_paths import InvalidKey, KeyRequired
from .request import ClientStalled, MalformedRequest, RequestBody

# Frontends believe any status but 200, 308 and 416 at once and only log the text, so that the number is
# free to say what is wrong; upstream has 500 for the last two.
STATUS_OF: dict[type[WorkerError], int] = {
    KeyRequired: 400,
    InvalidKey: 400,
    PathEscapes: 400,
    NamesDirectory: 400,
    MalformedRequest: 400,
    InvalidHash: 400,
    InvalidContentRange: 400,
    BodyTooShort: 400,
    BodyTooLong: 400,
    HashMismatch: 400,
    SidecarRefused: 400,
    ClientStalled: 408,
    OtherUploadHeld: 409,
    RangeNotHeld: 416,
    UploadTooLarge: 413,
    NoSpace: 507,
}


def text_reply(status: int, text: str) -> Response:
    """A refusal: plain text and a newline, which clients log."""
    headers = {"x-content-type-options": "nosniff"}
    # A file name may hold bytes that are not UTF-8, and errors name files.
    content = f"{text}\n".encode("utf-8", "backslashreplace")
    return Response(content, status, headers, media_type="text/plain")


def error_reply(error: WorkerError) -> Response:
    """The refusal that `error` amounts to; 500 for those the client has no part in."""
    if isinstance(error, PathEscapes):
        return text_reply(400, f'path "{error.path}" is outside allowed directory')
    reply = text_reply(STATUS_OF.get(type(error), 500), str(error))
    if isinstance(error, RangeNotHeld):
        reply.headers["content-range"] = f"bytes */{error.range.total}"
        reply.headers["x-file-size"] = str(error.held_bytes)
    return reply


def json_reply(content: dict[str, object]) -> Response:
    """A JSON object and a newline; ASCII only, so that any file name survives."""
    return Response(json.dumps(content) + "\n", media_type="application/json")


def more_to_come_reply(size_bytes: int) -> Response:
    """The piece is stored and the file not whole yet. No `Location`: clients would follow it."""
    headers = {"range": f"bytes=0-{size_bytes - 1}", "x-file-size": str(size_bytes)}
    return Response(status_code=308, headers=headers)


def local_path_reply(path: Path) -> Response:
    """Where the file is now, as backends are to be told."""
    return json_reply({"local_path": str(path)})


class OutgoingReply(StreamingResponse):
    """A whole file, its length announced, and the file closed whatever happens.

    Always 200 and everything, whatever `Range` asked for: the frontend's stager takes nothing else. A
    read that fails half-way leaves as an exception, on which the server cuts the connection: the client
    sees a broken transfer, not a short file.
    """

    def __init__(self, file: OutgoingFile) -> None:
        headers = {"content-length": str(file.size_bytes)}
        super().__init__(file.chunks(), headers=headers, media_type="application/octet-stream")
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await self._file.close()


async def answer(reply: Response, body: RequestBody, scope: Scope, receive: Receive, send: Send) -> None:
    """Send `reply`; when part of the request is still on its way, first answer, then drain, then close."""
    if body.ended or isinstance(reply, StreamingResponse):  # no refusal streams
        await reply(scope, receive, send)
        return
    reply.headers["connection"] = "close"
    if body.awaits_us:
        await reply(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": reply.status_code, "headers": reply.raw_headers})
    await send({"type": "http.response.body", "body": bytes(reply.body), "more_body": True})
    await body.drain()
    await send({"type": "http.response.body", "body": b"", "more_body": False})
