"""A node's routes as an ASGI application; Starlette is loaded by the call, not by the import."""

from typing import TYPE_CHECKING

from ...domain.backend_logs import BackendLogs
from ...domain.describe_node import DescribeNode
from ...domain.readiness import Readiness
from ...domain.receive_files import ReceiveFiles

if TYPE_CHECKING:
    from starlette.applications import Starlette


def node_routes(
    receive: ReceiveFiles,
    logs: BackendLogs,
    readiness: Readiness,
    token: str,
    node: DescribeNode | None = None,
) -> "Starlette":
    """Files, logs and, with `node`, `/v1/status` behind `token`; the open probes `/healthz` and `/readyz`.

    An empty `token` leaves everything open. The application needs no server of ours: it also runs in
    `httpx.ASGITransport`, all but the live views.
    """
    from .application import application

    return application(receive, logs, readiness, token, node)
