"""Routes that match the path as it was sent, before anybody decoded it."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.datastructures import URLPath
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

from ...domain.errors import WorkerError
from .guard import OPEN, Guard
from .replies import answer, error_reply, text_reply
from .request import ClientGone, FileRequest

log = logging.getLogger(__name__)

Endpoint = Callable[[FileRequest], Awaitable[Response]]


@dataclass
class RawRoute(BaseRoute):
    """Serves the raw path `path`, and with `takes_key` everything below it.

    Starlette's own routes match the decoded path, in which an encoded slash, dot or line break of a key
    cannot be told from a sent one. Nothing is ever redirected: a path with `//`, `.` or `..` in it is a
    key like any other below a key route, and unknown elsewhere.
    """

    path: bytes
    endpoint: Endpoint
    guard: Guard = OPEN
    takes_key: bool = False

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        raw_path: bytes = scope["raw_path"]
        below = self.takes_key and raw_path.startswith(self.path + b"/")
        return (Match.FULL if below or raw_path == self.path else Match.NONE), {}

    def url_path_for(self, name: str, /, **path_params: object) -> URLPath:
        raise NoMatchFound(name, dict(path_params))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the token, ask the endpoint, answer; what the endpoint foresees becomes a status."""
        raw_key = scope["raw_path"].removeprefix(self.path).removeprefix(b"/")
        request = FileRequest.of(scope, receive, raw_key)
        try:
            reply = await self._reply(scope, request)
            if reply is not None:
                await answer(reply, request.body, scope, receive, send)
        finally:
            request.body.close()

    async def _reply(self, scope: Scope, request: FileRequest) -> Response | None:
        """The answer; None when there is nobody left to take it."""
        try:
            if self.guard.admits(scope):
                return await self.endpoint(request)
            log.warning(
                "no or wrong token: %s %r from %s", request.method, scope["raw_path"], scope.get("client")
            )
            return text_reply(401, "unauthorized")
        except ClientGone as error:
            log.info("request ended early: %s %r: %s", request.method, scope["raw_path"], error)
            return None
        except WorkerError as error:
            log.warning("request refused: %s %r: %s", request.method, scope["raw_path"], error)
            return error_reply(error)
