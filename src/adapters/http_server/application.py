"""The Starlette application that a node's routes make up."""

import logging

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from ...domain.backend_logs import BackendLogs
from ...domain.describe_node import DescribeNode
from ...domain.readiness import Readiness
from ...domain.receive_files import ReceiveFiles
from .file_endpoints import FileEndpoints, unknown_path
from .guard import Guard
from .log_endpoints import PREFIX, LiveLogRoute, LogEndpoints
from .probe_endpoints import ProbeEndpoints
from .raw_route import RawRoute
from .status_endpoint import STATUS, StatusEndpoint

log = logging.getLogger(__name__)


def application(
    receive: ReceiveFiles,
    logs: BackendLogs,
    readiness: Readiness,
    token: str,
    node: DescribeNode | None,
) -> Starlette:
    """See `routes.node_routes`."""
    if not token:
        log.warning(
            "no registration token: anybody who reaches the HTTP port may read and write this node's files"
        )
    guard = Guard(token)
    files, lines, probes = FileEndpoints(receive), LogEndpoints(logs), ProbeEndpoints(readiness)
    routes: list[BaseRoute] = [
        RawRoute(b"/v1/files", files.file, guard, takes_key=True),
        RawRoute(b"/v1/files-list", files.listing, guard, takes_key=True),
        RawRoute(PREFIX, lines.models, guard),
        RawRoute(PREFIX, lines.lines, guard, takes_key=True),
        RawRoute(b"/healthz", probes.health),
        RawRoute(b"/readyz", probes.ready),
        LiveLogRoute(logs, guard),
        *([RawRoute(STATUS, StatusEndpoint(node).status, guard)] if node else []),
        RawRoute(b"", unknown_path, takes_key=True),
    ]
    return Starlette(routes=routes)
