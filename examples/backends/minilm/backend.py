"""A LocalAI backend in one file: all-MiniLM-L6-v2 behind `backend.Backend`, text in, 384 numbers out.

The server needs four things besides the model: `--addr`, the token check, `Health` at any time (also
while the model computes), and a clean end on SIGTERM. Libraries that only the model needs are imported by
LoadModel, so that the port answers as soon as possible. README.md says how to turn this into your own.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import hmac
import os
import platform
import resource
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

try:
    import backend_pb2 as pb
    import grpc
except ImportError as error:
    sys.exit(
        f"minilm: {error}. Libraries in lib/ serve the Python they were packed with, this is "
        f"{platform.python_version()} at {sys.executable}: set PYTHON to the other one, or pack again"
    )

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from model import MiniLM

    Context = grpc.aio.ServicerContext[Any, Any]

MESSAGE_LIMIT_BYTES = 50 * 1024 * 1024  # both directions, as LocalAI's client
DRAIN_S = 10.0  # for calls in progress at SIGTERM; the worker sends SIGKILL after 15 s
TOKEN_VARIABLE = "LOCALAI_GRPC_AUTH_TOKEN"
WORKERS_VARIABLE = "PYTHON_GRPC_MAX_WORKERS"

Outcome = TypeVar("Outcome")


class Refused(Exception):
    """A call asks for what cannot be done; the text goes to the caller."""


class CannotListen(Exception):
    """The address is taken, or not one of this machine."""


@dataclass(frozen=True)
class LoadedModel:
    """The model that answers, under the name it was loaded by (ModelOptions.Model)."""

    name: str
    model: MiniLM


class MiniLMBackend:
    """The RPCs, called on the event loop; loading and computing run in `pool`."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._loading = asyncio.Lock()  # one LoadModel or Free at a time, in the order they came
        self._loaded: LoadedModel | None = None
        self._computing = 0

    async def health(self, _request: pb.HealthMessage, _context: Context) -> pb.Reply:
        return pb.Reply(message=b"OK")

    async def load_model(self, request: pb.ModelOptions, _context: Context) -> pb.Result:
        """Replace the model; when the new one cannot be loaded, the old one stays."""
        async with self._loading:
            # numpy's BLAS reads this once, when the first LoadModel imports it. Its own default, a thread per
            # core, spins: on busy cores an embedding then took five times as long as with one thread.
            os.environ.setdefault("OPENBLAS_NUM_THREADS", str(max(request.Threads, 1)))
            try:
                model = await self._compute(_load, request.ModelFile, request.Tokenizer)
            except Refused as error:
                log(f"cannot load {request.Model!r}: {error}")
                return pb.Result(success=False, message=str(error))
            self._loaded = LoadedModel(request.Model, model)
            log(f"loaded {request.Model!r} from {request.ModelFile}")
            return pb.Result(success=True, message="Loading succeeded")

    async def embedding(self, request: pb.PredictOptions, context: Context) -> pb.EmbeddingResult:
        loaded = self._loaded
        if loaded is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "model not loaded")
        if request.ModelIdentity and request.ModelIdentity != loaded.name:
            # A frontend with stale routing asks the wrong process: an answer would be a wrong embedding.
            mismatch = f"asked for {request.ModelIdentity!r}, this backend has {loaded.name!r}"
            await context.abort(grpc.StatusCode.NOT_FOUND, f"model identity mismatch: {mismatch}")
        if request.Embeddings and request.EmbeddingTokens:
            both = "Embeddings and EmbeddingTokens are both set: send the text or its tokens"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, both)
        ids = list(request.EmbeddingTokens)
        try:
            return await self._compute(_embed, loaded.model, request.Embeddings, ids)
        except Refused as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def free(self, _request: pb.HealthMessage, _context: Context) -> pb.Result:
        """Let the model go and give its memory back to the system."""
        async with self._loading:
            freed, self._loaded = self._loaded, None
            message = "no model was loaded" if freed is None else f"freed {freed.name!r}"
            del freed  # the last reference, unless an embedding still runs
            await self._compute(_return_memory)
        log(message)
        return pb.Result(success=True, message=message)

    async def status(self, _request: pb.HealthMessage, _context: Context) -> pb.StatusResponse:
        """BUSY while anything computes; memory in bytes: what the process holds, and the weights in it."""
        loaded = self._loaded
        state = pb.StatusResponse.UNINITIALIZED if loaded is None else pb.StatusResponse.READY
        return pb.StatusResponse(
            state=pb.StatusResponse.BUSY if self._computing else state,
            memory=pb.MemoryUsageData(
                total=_resident_bytes(),
                breakdown={"weights": 0 if loaded is None else loaded.model.size_bytes},
            ),
        )

    async def _compute(self, work: Callable[..., Outcome], *arguments: object) -> Outcome:
        self._computing += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        finally:
            self._computing -= 1


def _load(model_file: str, tokenizer: str) -> MiniLM:
    try:
        from model import MiniLM, ModelUnusable
    except ImportError as error:
        raise Refused(f"cannot import what the model needs: {error}") from error
    try:
        return MiniLM.load(model_file, tokenizer)
    except ModelUnusable as error:
        raise Refused(str(error)) from error


def _embed(model: MiniLM, text: str, ids: list[int]) -> pb.EmbeddingResult:
    """The embedding of `ids`, or of `text` when there are none."""
    from model import TokensRefused

    try:
        tokens = model.tokens_around(ids) if ids else model.tokens_of(text)
    except TokensRefused as error:
        raise Refused(str(error)) from error
    vector = model.embed(tokens)
    return pb.EmbeddingResult(
        embeddings=vector.tolist(),
        dim=len(vector),
        prompt_tokens=len(tokens),
        layout=pb.EmbeddingResult.FINAL,
    )


def _return_memory() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps what was freed until told
    if trim is not None:
        trim(0)


def _resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: the peak, in bytes


class RequireToken(grpc.aio.ServerInterceptor):
    """Answers UNAUTHENTICATED to every call, Health included, without `authorization: Bearer <token>`."""

    def __init__(self, token: bytes) -> None:
        self._expected = b"Bearer " + token

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        given = [value for key, value in handler_call_details.invocation_metadata if key == "authorization"]
        # As bytes: compare_digest refuses text beyond ASCII.
        if len(given) == 1 and hmac.compare_digest(_as_bytes(given[0]), self._expected):
            return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(_refuse)


async def _refuse(_request: bytes, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid token")


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def rpc_handlers(backend: MiniLMBackend) -> grpc.GenericRpcHandler:
    """What this backend implements; gRPC answers UNIMPLEMENTED to the rest of the service."""

    def unary(method: Any, request: Any) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(
            method,
            request_deserializer=request.FromString,
            response_serializer=lambda reply: reply.SerializeToString(),
        )

    return grpc.method_handlers_generic_handler(
        "backend.Backend",
        {
            "Health": unary(backend.health, pb.HealthMessage),
            "LoadModel": unary(backend.load_model, pb.ModelOptions),
            "Embedding": unary(backend.embedding, pb.PredictOptions),
            "Free": unary(backend.free, pb.HealthMessage),
            "Status": unary(backend.status, pb.HealthMessage),
        },
    )


async def serve(address: str, *, token: bytes, workers: int) -> None:
    """Answer on `address` until SIGTERM or SIGINT, then let calls in progress end.

    An empty `token` leaves the backend open. Raises CannotListen when `address` cannot be bound.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with ThreadPoolExecutor(workers, thread_name_prefix="minilm") as pool:
        server = grpc.aio.server(
            interceptors=[RequireToken(token)] if token else [],
            options=[
                ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
                ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
                # By default two servers may share a port, and half of the calls would reach the other one.
                ("grpc.so_reuseport", 0),
            ],
        )
        server.add_generic_rpc_handlers((rpc_handlers(MiniLMBackend(pool)),))
        try:
            server.add_insecure_port(address)
        except RuntimeError as error:
            raise CannotListen(f"cannot listen on {address}, is the port taken? {error}") from error
        await server.start()
        log(f"listening on {address}" + ("" if token else f", open to anyone: {TOKEN_VARIABLE} is not set"))
        await stopped.wait()
        log("stopping")
        await server.stop(DRAIN_S)


def log(message: str) -> None:
    """One line for the log that the worker keeps of this backend."""
    print(f"minilm: {message}", file=sys.stderr, flush=True)


def parse_address(text: str) -> str:
    """`host:port` as gRPC takes it, port 1 to 65535; an IPv6 host stands in brackets."""
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not host:port with a port of 1 to 65535")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(prog="minilm", description=__doc__, allow_abbrev=False)
    parser.add_argument("--addr", type=parse_address, default="localhost:50051", metavar="HOST:PORT")
    address: str = parser.parse_args().addr
    workers = os.environ.get(WORKERS_VARIABLE) or "1"
    if not (workers.isascii() and workers.isdigit() and int(workers) >= 1):
        parser.error(f"{WORKERS_VARIABLE} is {workers!r}, it must be a number from 1")
    try:
        asyncio.run(serve(address, token=os.environb.get(TOKEN_VARIABLE.encode(), b""), workers=int(workers)))
    except CannotListen as error:
        log(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
