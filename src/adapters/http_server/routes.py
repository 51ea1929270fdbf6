"""The file routes of a node as an ASGI application; Starlette is loaded by the call, not by the import."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...domain.receive_files import ReceiveFiles

if TYPE_CHECKING:
    from starlette.applications import Starlette

BUS_DOWN = "NATS connection is down: worker cannot receive work"
"""What `ready` says while the bus is down. Source: LocalAI core/services/worker/file_transfer_server.go."""


def file_routes(receive: ReceiveFiles, token: str, ready: Callable[[], tuple[bool, str]]) -> "Starlette":
    """`/v1/files/...`, `/v1/files-list/...` behind `token`, and the open probes `/healthz`, `/readyz`.

    An empty `token` leaves everything open. `ready` says whether the node can work and, if not, why.
    The application needs no server of ours: it also runs in `httpx.ASGITransport`.
    """
    from .file_application import file_application

    return file_application(receive, token, ready)
