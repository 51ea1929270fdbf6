"""Verbs on the wire itself: HTTP to a node's file server, any method, path, header and body."""

from collections.abc import Mapping
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
        token: str | None = None,
    ) -> object:
        """One HTTP request to the node's file server: status, headers and body of the answer."""
        row = self.live.commands.registry.named(node)
        if row is None:
            raise SimulationError(f"node {node} is not registered")
        token = self.live.commands.token if token is None else token
        told = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
        try:
            async with httpx.AsyncClient(timeout=_LIMIT_S, trust_env=False) as client:
                request = client.build_request(
                    method,
                    f"http://{row.http_address}",
                    headers=told,
                    content=body.encode() if body or method == "PUT" else None,
                    extensions={"target": path.encode()},
                )
                answer = await client.send(request)
        except httpx.HTTPError as error:
            raise SimulationError(f"{method} {path}: {str(error) or type(error).__name__}") from error
        return {"status": answer.status_code, "headers": dict(answer.headers), **_body(answer)}


def _body(answer: httpx.Response) -> Mapping[str, Any]:
    """The body as text, and read where it is JSON."""
    if answer.headers.get("content-type", "").startswith("application/json"):
        try:
            return {"body": answer.text, "json": answer.json()}
        except ValueError:
            return {"body": answer.text}
    return {"body": answer.text}
