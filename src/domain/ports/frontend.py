"""The frontend as the worker calls it: HTTP requests about our own node."""

from typing import Protocol

from ..messages.node_status import LoadedModel
from ..messages.registration import Heartbeat, RegisterReply, RegisterRequest
from ..node import NodeId


class FrontendClient(Protocol):
    """The node endpoints. Every call is one attempt of 10 s at most; retrying is the caller's decision.

    All methods raise FrontendUnavailable (no connection, timeout, 5xx, an answer that is not what the
    protocol says) and FrontendRefused (any other 4xx). Redirects are refused, never followed: they would
    carry the token to another host.
    """

    async def register(self, request: RegisterRequest) -> RegisterReply:
        """Make the node known; any 2xx with a non-empty id counts."""

    async def heartbeat(self, node_id: NodeId, beat: Heartbeat) -> None:
        """Report that the node lives.

        Raises:
            NodeForgotten: the frontend answers 404.
        """

    async def drain(self, node_id: NodeId) -> None:
        """Ask that the node gets no new work."""

    async def loaded_models(self, node_id: NodeId) -> tuple[LoadedModel, ...]:
        """The frontend's rows of this node, for `in_flight`.

        Raises:
            FrontendUnavailable: also for an answer that is no list: it must not read as "nothing in flight".
        """

    async def deregister(self, node_id: NodeId) -> None:
        """Mark the node offline; the row stays."""

    async def close(self) -> None:
        """Let go of connections; idempotent."""
