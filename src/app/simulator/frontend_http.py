"""The simulated frontend's node endpoints over HTTP.

Sources: LocalAI core/http/routes/nodes.go, core/http/endpoints/localai/nodes.go.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from ...adapters.memory.frontend import InMemoryFrontend
from ...adapters.memory.frontend_registry import NodeCallRefused
from ...domain.errors import FrontendUnavailable
from ...domain.messages.node_status import NodeError, encode_loaded_models
from ...domain.messages.writing import encode_object

_ELSEWHERE = "http://elsewhere.invalid/"

Endpoint = Callable[[Request], Awaitable[Response]]


def frontend_app(frontend: InMemoryFrontend, documents: Mapping[str, bytes] | None = None) -> Starlette:
    """An ASGI application that answers for `frontend` with its statuses and bodies.

    `documents` are served under `/documents/<name>` besides: galleries, for instance. An `offline`
    frontend answers 503: only the server around this application can hang up.
    """
    nodes = _NodeEndpoints(frontend)
    node = "/api/node/{id}"
    routes = [
        Route("/api/node/register", _answering(nodes.register), methods=["POST"]),
        Route(f"{node}/heartbeat", _answering(nodes.heartbeat), methods=["POST"]),
        Route(f"{node}/drain", _answering(nodes.drain), methods=["POST"]),
        Route(f"{node}/resume", _answering(nodes.resume), methods=["POST"]),
        Route(f"{node}/models", _answering(nodes.models), methods=["GET"]),
        Route(f"{node}/deregister", _answering(nodes.deregister), methods=["POST"]),
        Route(node, _answering(nodes.delete), methods=["DELETE"]),
    ]
    served = documents if documents is not None else {}

    async def document(request: Request) -> Response:
        content = served.get(request.path_params["name"])
        return Response(
            content or b"", 404 if content is None else 200, media_type="application/octet-stream"
        )

    routes.append(Route("/documents/{name}", document))
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return app


@dataclass(frozen=True)
class _NodeEndpoints:
    frontend: InMemoryFrontend

    async def register(self, request: Request) -> Response:
        reply = await self.frontend.register(await _json_body(request), _authorization(request))
        return _json(201, reply.to_wire())

    async def heartbeat(self, request: Request) -> Response:
        body = await _json_body(request)
        await self.frontend.heartbeat(_id(request), body, _authorization(request))
        return _message("heartbeat received")

    async def drain(self, request: Request) -> Response:
        await self.frontend.drain(_id(request), _authorization(request))
        return _message("node set to draining")

    async def resume(self, request: Request) -> Response:
        await self.frontend.resume(_id(request), _authorization(request))
        return _message("node resumed")

    async def models(self, request: Request) -> Response:
        rows = await self.frontend.models(_id(request), _authorization(request))
        return _json(200, encode_loaded_models(rows))

    async def deregister(self, request: Request) -> Response:
        await self.frontend.deregister(_id(request), _authorization(request))
        return _message("node set to offline")

    async def delete(self, request: Request) -> Response:
        await self.frontend.delete(_id(request), _authorization(request))
        return _message("node set to offline")


def _answering(endpoint: Endpoint) -> Endpoint:
    """`endpoint` with refusals as the answers they stand for."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except NodeCallRefused as refused:
            if refused.status >= 400:
                return _json(refused.status, refused.body.to_wire())
            headers = {"Location": _ELSEWHERE} if refused.status >= 300 else None
            return HTMLResponse("<html>not the frontend</html>", refused.status, headers)
        except FrontendUnavailable as error:
            return _json(503, NodeError(message=error.reason, code=503).to_wire())

    return answer


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def _authorization(request: Request) -> str:
    return request.headers.get("authorization", "").encode("latin-1").decode(errors="surrogateescape")


async def _json_body(request: Request) -> bytes:
    """The body, or nothing where the frontend would not read it as JSON."""
    body = await request.body()
    return body if request.headers.get("content-type", "").startswith("application/json") else b""


def _message(text: str) -> Response:
    return _json(200, encode_object({"message": text}))


def _json(status: int, content: bytes) -> Response:
    return Response(content + b"\n", status, media_type="application/json")
