"""`InferenceClient` over gRPC: plaintext, one channel per call, as LocalAI's own client does it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc
import grpc.aio

from ...domain.errors import BackendUnavailable, BackendUnhealthy, ModelLoadFailed
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


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name


_Reply = TypeVar("_Reply", pb.Reply, pb.Result, pb.EmbeddingResult)


@dataclass(frozen=True)
class GrpcBackendClient:
    """Calls a LocalAI backend; `token` goes along as bearer metadata on every call when it is not empty."""

    token: str = ""

    async def health(self, address: str, *, timeout_s: float) -> None:
        reply = await self._call(address, "Health", pb.HealthMessage(), pb.Reply, timeout_s)
        if reply.message != b"OK":
            raise BackendUnhealthy(address, reply.message.decode(errors="replace"))

    async def free(self, address: str, *, timeout_s: float) -> None:
        await self._call(address, "Free", pb.HealthMessage(), pb.Result, timeout_s)

    async def load_model(self, address: str, model: ModelToLoad, *, timeout_s: float) -> None:
        options = pb.ModelOptions(
            Model=model.name, ModelFile=model.file, ModelPath=model.directory, Tokenizer=model.tokenizer
        )
        result = await self._call(address, "LoadModel", options, pb.Result, timeout_s)
        if not result.success:
            raise ModelLoadFailed(address, result.message)

    async def embed(self, address: str, text: str, *, timeout_s: float) -> tuple[float, ...]:
        request = pb.PredictOptions(Embeddings=text)
        result = await self._call(address, "Embedding", request, pb.EmbeddingResult, timeout_s)
        return tuple(result.embeddings)

    async def _call(
        self, address: str, method: str, request: _Message, reply: type[_Reply], timeout_s: float
    ) -> _Reply:
        metadata = [("authorization", f"Bearer {self.token}")] if self.token else None
        async with _channel(address) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[_Message, _Reply] = channel.unary_unary(
                f"/backend.Backend/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=reply.FromString,
            )
            try:
                answer: _Reply = await call(request, timeout=timeout_s, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                raise BackendUnavailable(
                    address, error.code().name, error.details() or "no details"
                ) from error
        return answer


@asynccontextmanager
async def _channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
    try:
        yield channel
    finally:
        await channel.close()
