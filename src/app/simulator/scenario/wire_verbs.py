"""Verbs on the wire itself: HTTP to a node's file server, any method, path, header and body."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from ..failures import SimulationError
from ..live import LiveFrontend
from .verbs import verb

_LIMIT_S = 60.0


@dataclass
class WireVerbs:
    """Requests go out as they are written, with the registration token unless `token` says otherwise."""

    live: LiveFrontend

    @verb
    async def http(
        self,
        node: str,
        path: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: str = "",
        file: str = "",
        token: str | None = None,
        cut_after: int | None = None,
    ) -> object:
        """One HTTP request to the node's file server: status, headers and body of the answer.

        `file` of the frontend's models directory is a body as well. With `cut_after` the connection is
        dropped when about so many bytes of the body were sent, and the status is 0.
        """
        row = self.live.commands.registry.named(node)
        if row is None:
            raise SimulationError(f"node {node} is not registered")
        token = self.live.commands.token if token is None else token
        told = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
        sent = (self.live.models / file).read_bytes() if file else body.encode()
        content: bytes | AsyncIterator[bytes] | None = sent if sent or method == "PUT" else None
        if cut_after is not None:
            told["Content-Length"] = str(len(sent))
            content = _cut(sent[: int(cut_after)])
        try:
            async with httpx.AsyncClient(timeout=_LIMIT_S, trust_env=False) as client:
                request = client.build_request(
                    method,
                    f"http://{row.http_address}",
                    headers=told,
                    content=content,
                    extensions={"target": path.encode()},
                )
                answer = await client.send(request)
        except _Cut:
            return {"status": 0}
        except httpx.HTTPError as error:
            raise SimulationError(f"{method} {path}: {str(error) or type(error).__name__}") from error
        return {"status": answer.status_code, "headers": dict(answer.headers), **_body(answer)}


class _Cut(Exception):
    """The body ends here, and the connection with it."""


async def _cut(body: bytes) -> AsyncIterator[bytes]:
    yield body
    raise _Cut


def _body(answer: httpx.Response) -> Mapping[str, Any]:
    """The body as text, and read where it is JSON."""
    if answer.headers.get("content-type", "").startswith("application/json"):
        try:
            return {"body": answer.text, "json": answer.json()}
        except ValueError:
            return {"body": answer.text}
    return {"body": answer.text}
