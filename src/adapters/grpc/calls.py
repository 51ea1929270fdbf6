"""One gRPC call to a backend: plaintext, a channel of its own, as LocalAI's own client does it.

Loaded with grpcio when the first call is made: a worker without backends does not pay for it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import anyio
import anyio.lowlevel
import grpc
import grpc.aio

from ...domain.errors import BackendUnavailable
from ...domain.ports.backend_client import ModelToLoad
from . import backend_pb2 as pb

_MESSAGE_LIMIT_BYTES = 50 * 1024 * 1024  # LocalAI pkg/grpc, both directions
_OPTIONS = (
    ("grpc.max_send_message_length", _MESSAGE_LIMIT_BYTES),
    ("grpc.max_receive_message_length", _MESSAGE_LIMIT_BYTES),
    ("grpc.enable_http_proxy", 0),  # grpcio would send even loopback calls through http_proxy
    # Channels to one address share their connection state by default; a refused attempt would then
    # make the next channel wait out its backoff although the backend listens by now.
    ("grpc.use_local_subchannel_pool", 1),
)


_CLOSE_S = 2.0


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name


_Reply = TypeVar("_Reply", pb.Reply, pb.Result, pb.EmbeddingResult)


async def call(
    address: str, token: str, method: str, request: _Message, reply: type[_Reply], timeout_s: float
) -> _Reply:
    """Call `/backend.Backend/<method>` at `address` and return its answer.

    Raises:
        BackendUnavailable: no answer in `timeout_s` seconds, or an RPC error.
    """
    metadata = [("authorization", f"Bearer {token}")] if token else None
    async with _channel(address) as channel:
        rpc: grpc.aio.UnaryUnaryMultiCallable[_Message, _Reply] = channel.unary_unary(
            f"/backend.Backend/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        try:
            answer: _Reply = await rpc(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise BackendUnavailable(address, error.code().name, error.details() or "no details") from error
        except anyio.get_cancelled_exc_class():
            # grpcio raises an error of its own in place of the cancellation it swallowed; the scope that
            # asked for it would not know it again, and let it pass.
            await anyio.lowlevel.checkpoint_if_cancelled()
            raise
    return answer


@asynccontextmanager
async def _channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
    try:
        yield channel
    finally:
        # Shielded: a cancelled call would leave its connection and its timers behind.
        with anyio.move_on_after(_CLOSE_S, shield=True):
            await channel.close()


async def health(address: str, token: str, *, timeout_s: float) -> bytes:
    """The message of Health; `OK` from a healthy backend."""
    return (await call(address, token, "Health", pb.HealthMessage(), pb.Reply, timeout_s)).message


async def free(address: str, token: str, *, timeout_s: float) -> None:
    """Free; what the Result says is no matter."""
    await call(address, token, "Free", pb.HealthMessage(), pb.Result, timeout_s)


async def load_model(address: str, token: str, model: ModelToLoad, *, timeout_s: float) -> str | None:
    """LoadModel; None when it worked, else the backend's message."""
    options = pb.ModelOptions(
        Model=model.name, ModelFile=model.file, ModelPath=model.directory, Tokenizer=model.tokenizer
    )
    result = await call(address, token, "LoadModel", options, pb.Result, timeout_s)
    return None if result.success else result.message


async def embed(address: str, token: str, text: str, *, timeout_s: float) -> tuple[float, ...]:
    """Embedding of one text."""
    request = pb.PredictOptions(Embeddings=text)
    result = await call(address, token, "Embedding", request, pb.EmbeddingResult, timeout_s)
    return tuple(result.embeddings)
