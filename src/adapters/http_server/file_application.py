"""The Starlette application that the file routes make up."""

import logging
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from ...domain.receive_files import ReceiveFiles
from .file_endpoints import FileEndpoints, ProbeEndpoints, unknown_path
from .raw_route import Guard, RawRoute

log = logging.getLogger(__name__)


def file_application(receive: ReceiveFiles, token: str, ready: Callable[[], tuple[bool, str]]) -> Starlette:
    """See `routes.file_routes`."""
    if not token:
        log.warning(
            "no registration token: anybody who reaches the HTTP port may read and write this node's files"
        )
    guard = Guard(token)
    files = FileEndpoints(receive)
    probes = ProbeEndpoints(ready)
    routes: list[BaseRoute] = [
        RawRoute(b"/v1/files", files.file, guard, takes_key=True),
        RawRoute(b"/v1/files-list", files.listing, guard, takes_key=True),
        RawRoute(b"/healthz", probes.health),
        RawRoute(b"/readyz", probes.readiness),
        RawRoute(b"", unknown_path, takes_key=True),
    ]
    return Starlette(routes=routes)
