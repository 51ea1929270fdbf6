"""`/v1/status`: the node as its operator sees it; no route of LocalAI's own worker."""

from dataclasses import dataclass

from starlette.responses import Response

from ...domain.describe_node import DescribeNode
from ...domain.messages.writing import encode_object
from .replies import json_reply, method_not_allowed
from .request import FileRequest

STATUS = b"/v1/status"


@dataclass(frozen=True)
class StatusEndpoint:
    """Behind the token: it names models."""

    node: DescribeNode

    async def status(self, request: FileRequest) -> Response:
        """GET of the description, one JSON object."""
        if request.method != "GET":
            return method_not_allowed("GET")
        return json_reply(encode_object((await self.node.describe()).to_fields()))
