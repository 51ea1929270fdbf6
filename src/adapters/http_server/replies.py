"""The answers of the file routes, in the forms their clients know."""

import json
import logging
from pathlib import Path

from anyio import CancelScope, fail_after
from starlette.responses import Response
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
from .byte_range import ByteRange
from .request import ClientStalled, MalformedRequest, RequestBody
from .socket_loan import ConnectionEnded, loan_of

log = logging.getLogger(__name__)

SEND_IDLE_S = 120.0  # how long a client may take nothing of a download; it can ask for the rest later

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


def json_reply(content: bytes) -> Response:
    """JSON, and a newline after it."""
    return Response(content + b"\n", media_type="application/json")


def method_not_allowed(*allowed: str) -> Response:
    """The refusal of any method but `allowed`."""
    reply = text_reply(405, "method not allowed")
    reply.headers["allow"] = ", ".join(allowed)
    return reply


def no_such_range_reply(size_bytes: int) -> Response:
    """A download asks for bytes behind the end of the file."""
    reply = text_reply(416, f"the file has {size_bytes} bytes")
    reply.headers["content-range"] = f"bytes */{size_bytes}"
    return reply


def more_to_come_reply(size_bytes: int) -> Response:
    """The piece is stored and the file not whole yet. No `Location`: clients would follow it."""
    headers = {"range": f"bytes=0-{size_bytes - 1}", "x-file-size": str(size_bytes)}
    return Response(status_code=308, headers=headers)


def local_path_reply(path: Path) -> Response:
    """Where the file is now, as backends are to be told."""
    return json_reply(json.dumps({"local_path": str(path)}).encode())  # ASCII: any file name survives


class OutgoingReply(Response):
    """A file or one range of it, its length announced, and the file closed whatever happens.

    A read that fails half-way cuts the connection: the client sees a broken transfer, not a short file. So
    does a client that takes nothing for `SEND_IDLE_S`.
    """

    def __init__(self, file: OutgoingFile, part: ByteRange | None) -> None:
        whole = ByteRange(0, file.size_bytes)
        headers = {"content-length": str((part or whole).count), "accept-ranges": "bytes"}
        if part is not None:
            headers["content-range"] = part.content_range(file.size_bytes)
        super().__init__(None, 206 if part else 200, headers, media_type="application/octet-stream")
        self._file = file
        self._part = part or whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        loan = loan_of(scope)
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            if loan is not None and self._file.descriptor is not None:
                part = self._part
                await loan.send_file(self._file.descriptor, part.start, part.count, idle_s=SEND_IDLE_S)
            else:
                await self._send_chunks(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (TimeoutError, EOFError, OSError, WorkerError) as error:
            what = "the client takes nothing" if isinstance(error, TimeoutError) else str(error)
            log.warning("download cut off: %r: %s", scope["raw_path"], what or "the file became shorter")
            if loan is None:
                raise  # on which a server closes the connection
            loan.cut(at_once=isinstance(error, TimeoutError | ConnectionEnded))
        finally:
            with CancelScope(shield=True):
                await self._file.close()

    async def _send_chunks(self, send: Send) -> None:
        async for chunk in self._file.chunks(self._part.start, self._part.count):
            with fail_after(SEND_IDLE_S):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def answer(reply: Response, body: RequestBody, scope: Scope, receive: Receive, send: Send) -> None:
    """Send `reply`; when part of the request is still on its way, first answer, then drain, then close."""
    if body.ended or isinstance(reply, OutgoingReply):  # no refusal streams
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
