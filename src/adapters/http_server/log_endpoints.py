"""What backends print, as the frontend's web UI asks for it: lists, lines, and live views."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from anyio import create_task_group, fail_after
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ...domain.backend_logs import BackendLogs, LogReader
from ...domain.messages.log_lines import initial_frame, line_frame, log_lines_body
from ...domain.messages.writing import encode_list
from .guard import Guard
from .replies import json_reply, method_not_allowed, text_reply
from .request import FileRequest, MalformedRequest, decode_once

log = logging.getLogger(__name__)

PREFIX = b"/v1/backend-logs"
LIVE = b"/ws"
SEND_LIMIT_S = 30.0  # for one frame, as upstream
TOO_SLOW = 1013  # "try again later", of RFC 6455's registry


def identifier(raw: bytes, logs: BackendLogs) -> str:
    """The model or replica that the raw path `raw` names.

    The web UI escapes it twice, everybody else once: it is decoded twice, and once only where that leads
    nowhere, as for an id with a percent sign of its own (H-26).

    Raises:
        MalformedRequest: an escape that is none, in the path as it was sent.
    """
    once = decode_once(raw)
    try:
        twice = decode_once(once.encode("utf-8", "surrogateescape"))
    except MalformedRequest:
        return once
    return twice if logs.lines(twice) or not logs.lines(once) else once


@dataclass(frozen=True)
class LogEndpoints:
    """`/v1/backend-logs` and `/v1/backend-logs/{id}`; the live view is `LiveLogRoute`."""

    logs: BackendLogs

    async def models(self, request: FileRequest) -> Response:
        """GET of the models that printed something."""
        if request.method != "GET":
            return method_not_allowed("GET")
        return json_reply(encode_list(self.logs.models()))

    async def lines(self, request: FileRequest) -> Response:
        """GET of what one model or replica printed."""
        if request.method != "GET":
            return method_not_allowed("GET")
        if request.raw_key.endswith(LIVE):
            return text_reply(400, "this is a live view: ask for an upgrade to WebSocket")
        if not request.raw_key:
            return text_reply(400, "model ID required")
        return json_reply(log_lines_body(self.logs.lines(identifier(request.raw_key, self.logs))))


@dataclass
class LiveLogRoute(BaseRoute):
    """`/v1/backend-logs/{id}/ws`: what was printed so far, then every line as it comes.

    A client that reads too slowly is dropped, not waited for: it can come back and gets what it missed.
    Every other request for a WebSocket is refused here, too.
    """

    logs: BackendLogs
    guard: Guard

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL if scope["type"] == "websocket" else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the token, the path and the origin; then follow."""
        socket = WebSocket(scope, receive, send)
        raw: bytes = scope["raw_path"]
        if not self.guard.admits(scope):
            log.warning("no or wrong token: live view %r from %s", raw, scope.get("client"))
            return await socket.send_denial_response(text_reply(401, "unauthorized"))
        if not (raw.startswith(PREFIX + b"/") and raw.endswith(LIVE)):
            return await socket.send_denial_response(text_reply(404, "404 page not found"))
        raw_id = raw[len(PREFIX) + 1 : -len(LIVE)]
        if not raw_id:
            return await socket.send_denial_response(text_reply(400, "model ID required"))
        if not _same_origin(socket.headers):
            return await socket.send_denial_response(text_reply(403, "foreign origin"))
        try:
            name = identifier(raw_id, self.logs)
        except MalformedRequest as error:
            return await socket.send_denial_response(text_reply(400, str(error)))
        return await self._follow(socket, name)

    async def _follow(self, socket: WebSocket, name: str) -> None:
        await socket.accept()
        async with create_task_group() as tasks:
            with self.logs.follow(name) as reader:
                tasks.start_soon(_tell, socket, reader)
                await _until_closed(socket)
                tasks.cancel_scope.cancel()


async def _tell(socket: WebSocket, reader: LogReader) -> None:
    try:
        with fail_after(SEND_LIMIT_S):
            await socket.send_text(initial_frame(reader.initial).decode())
        async for line in reader:
            with fail_after(SEND_LIMIT_S):
                await socket.send_text(line_frame(line).decode())
        await socket.close(TOO_SLOW, "this view reads too slowly; open it again")
    except TimeoutError:
        log.warning("live view dropped, it takes nothing: id=%s", reader.identifier)
        await socket.close(TOO_SLOW)
    except WebSocketDisconnect:
        return  # its reader learns the same


async def _until_closed(socket: WebSocket) -> None:
    """Read and ignore what a viewer sends, until it goes."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _same_origin(headers: Mapping[str, str]) -> bool:
    """No `Origin`, or one of this very host: another site's page may not read logs through a browser."""
    origin = headers.get("origin")
    return not origin or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
