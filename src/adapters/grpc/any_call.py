"""Any unary RPC of the service by its name, messages as dictionaries: for what a scenario calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format, message_factory

from ...domain.errors import WorkerError
from . import backend_pb2 as pb
from .calls import call

_METHODS = pb.DESCRIPTOR.services_by_name["Backend"].methods_by_name


@dataclass(eq=False)
class UnknownRpc(WorkerError):
    """There is no unary RPC of that name, or its request has no such fields."""

    rpc: str
    reason: str

    def __str__(self) -> str:
        return f"RPC {self.rpc}: {self.reason}"


async def call_by_name(
    address: str, token: str, rpc: str, fields: Mapping[str, object], *, timeout_s: float
) -> dict[str, Any]:
    """Call `rpc` with the request that has `fields`, and return the fields of its answer, unset ones too.

    Names are those of backend.proto; a Reply's message, bytes on the wire, is text here.

    Raises:
        UnknownRpc: the name, or a field, is not one of the service's.
        BackendUnavailable: as `BackendClient.health`.
    """
    method = _METHODS.get(rpc)
    if method is None or method.server_streaming:
        known = ", ".join(sorted(name for name, each in _METHODS.items() if not each.server_streaming))
        raise UnknownRpc(rpc, f"unknown; there are {known}")
    try:
        request = json_format.ParseDict(dict(fields), message_factory.GetMessageClass(method.input_type)())
    except json_format.ParseError as error:
        raise UnknownRpc(rpc, str(error)) from error
    reply_class: Any = message_factory.GetMessageClass(method.output_type)
    reply = await call(address, token, rpc, request, reply_class, timeout_s)
    told = json_format.MessageToDict(
        reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    if isinstance(reply, pb.Reply):
        told["message"] = reply.message.decode(errors="replace")
    return told
