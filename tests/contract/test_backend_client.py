"""The promises of the `InferenceClient` port, held over gRPC and by the in-memory client."""

import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest

from localai_worker.adapters.grpc import backend_pb2 as pb
from localai_worker.adapters.grpc.backend_client import GrpcBackendClient
from localai_worker.adapters.memory.backend import FakeBackend
from localai_worker.adapters.memory.backend_client import InMemoryBackendClient
from localai_worker.adapters.memory.machine import InMemoryMachine
from localai_worker.domain.errors import BackendUnavailable, BackendUnhealthy, ModelLoadFailed
from localai_worker.domain.ports.backend_client import InferenceClient, ModelToLoad
from tests.servers import free_port

MODEL = ModelToLoad(name="sub/model.gguf", file="/models/key/sub/model.gguf", tokenizer="/models/key/t.json")


@dataclass
class GrpcServer:
    """`FakeBackend`'s behaviour on the wire: a real server, real messages."""

    backend: FakeBackend
    seen: list[pb.ModelOptions] = field(default_factory=list)

    async def start(self, port: int) -> Any:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        rpcs: dict[str, tuple[Any, Callable[[Any, Any], Any]]] = {
            "Health": (pb.HealthMessage, self.health),
            "LoadModel": (pb.ModelOptions, self.load),
            "Embedding": (pb.PredictOptions, self.embed),
        }
        if self.backend.has_free:
            rpcs["Free"] = (pb.HealthMessage, self.free)
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(
                handler, request.FromString, lambda message: message.SerializeToString()
            )
            for name, (request, handler) in rpcs.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("backend.Backend", handlers),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        return server

    async def health(self, _request: pb.HealthMessage, context: Any) -> pb.Reply:
        await self._enter("health", context)
        return pb.Reply(message=self.backend.health.encode())

    async def free(self, _request: pb.HealthMessage, context: Any) -> pb.Result:
        await self._enter("free", context)
        self.backend.freed += 1
        return pb.Result(success=False, message="nothing to free")

    async def load(self, request: pb.ModelOptions, context: Any) -> pb.Result:
        await self._enter("load_model", context)
        self.seen.append(request)
        if self.backend.refuses_load:
            return pb.Result(success=False, message=self.backend.refuses_load)
        self.backend.model = MODEL
        return pb.Result(success=True, message="Loading succeeded")

    async def embed(self, request: pb.PredictOptions, context: Any) -> pb.EmbeddingResult:
        await self._enter("embed", context)
        if self.backend.model is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "model not loaded")
        return pb.EmbeddingResult(embeddings=self.backend.embed(request.Embeddings))

    async def _enter(self, name: str, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        if self.backend.token and metadata.get("authorization") != f"Bearer {self.backend.token}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid token")
        if name in self.backend.hangs:
            await anyio.sleep_forever()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for the module: grpcio delivers what is left of a call to loops that are closed by then."""
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
async def loop_of_the_module(anyio_backend: str) -> AsyncIterator[None]:
    yield
    await anyio.wait_all_tasks_blocked()


@dataclass
class Stage:
    """A way to put a backend somewhere and a client that reaches it."""

    kind: str
    client: Callable[[str], InferenceClient]
    serve: Callable[[FakeBackend], Any]


@pytest.fixture(params=["memory", "grpc"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    if request.param == "memory":
        machine = InMemoryMachine()

        async def put(backend: FakeBackend) -> str:
            port = free_port()
            machine.strangers[port] = backend
            return f"127.0.0.1:{port}"

        yield Stage("memory", lambda token: InMemoryBackendClient(machine, token), put)
        return
    servers: list[Any] = []

    async def serve(backend: FakeBackend) -> str:
        port = free_port()
        servers.append(await GrpcServer(backend).start(port))
        return f"127.0.0.1:{port}"

    yield Stage("grpc", GrpcBackendClient, serve)
    for server in servers:
        await server.stop(0)


async def test_a_healthy_backend_answers_ok(stage: Stage) -> None:
    await stage.client("").health(await stage.serve(FakeBackend()), timeout_s=5)


@pytest.mark.parametrize("answer", ["", "LOADING", "ok"])
async def test_anything_but_ok_is_unhealthy(stage: Stage, answer: str) -> None:
    address = await stage.serve(FakeBackend(health=answer))
    with pytest.raises(BackendUnhealthy) as caught:
        await stage.client("").health(address, timeout_s=5)
    assert caught.value.message == answer
    assert caught.value.address == address


async def test_nobody_there_is_unavailable(stage: Stage) -> None:
    with pytest.raises(BackendUnavailable) as caught:
        await stage.client("").health(f"127.0.0.1:{free_port()}", timeout_s=5)
    assert caught.value.code == "UNAVAILABLE"


async def test_a_port_that_was_refused_a_moment_ago_is_asked_anew(stage: Stage) -> None:
    """A client that shared its connection state would wait a second before it tried again."""
    port = free_port()
    client = stage.client("")
    with pytest.raises(BackendUnavailable):
        await client.health(f"127.0.0.1:{port}", timeout_s=5)
    address = await stage.serve(FakeBackend())
    await client.health(address, timeout_s=0.9)


@pytest.mark.parametrize("call", ["health", "free", "load_model", "embed"])
async def test_every_call_ends_within_its_time(stage: Stage, call: str) -> None:
    address = await stage.serve(FakeBackend(hangs=frozenset({call}), model=MODEL))
    client = stage.client("")
    arguments: dict[str, tuple[Any, ...]] = {"load_model": (MODEL,), "embed": ("text",)}
    with pytest.raises(BackendUnavailable) as caught, anyio.fail_after(10):
        await getattr(client, call)(address, *arguments.get(call, ()), timeout_s=0.2)
    assert caught.value.code == "DEADLINE_EXCEEDED"


async def test_the_token_goes_along_with_every_call(stage: Stage) -> None:
    address = await stage.serve(FakeBackend(token="s3cret", model=MODEL))
    client = stage.client("s3cret")
    await client.health(address, timeout_s=5)
    await client.load_model(address, MODEL, timeout_s=5)
    assert len(await client.embed(address, "text", timeout_s=5)) == 256
    await client.free(address, timeout_s=5)


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_a_wrong_token_is_told_as_such(stage: Stage, token: str) -> None:
    address = await stage.serve(FakeBackend(token="s3cret"))
    with pytest.raises(BackendUnavailable) as caught:
        await stage.client(token).health(address, timeout_s=5)
    assert caught.value.code == "UNAUTHENTICATED"


async def test_free_counts_as_done_whatever_its_result(stage: Stage) -> None:
    backend = FakeBackend()
    await stage.client("").free(await stage.serve(backend), timeout_s=5)
    assert backend.freed == 1


async def test_a_backend_without_free_says_unimplemented(stage: Stage) -> None:
    address = await stage.serve(FakeBackend(has_free=False))
    with pytest.raises(BackendUnavailable) as caught:
        await stage.client("").free(address, timeout_s=5)
    assert caught.value.code == "UNIMPLEMENTED"


async def test_a_refused_load_comes_with_the_backends_words(stage: Stage) -> None:
    address = await stage.serve(FakeBackend(refuses_load="no such file: model.gguf"))
    with pytest.raises(ModelLoadFailed, match=r"no such file: model\.gguf"):
        await stage.client("").load_model(address, MODEL, timeout_s=5)


async def test_an_embedding_needs_a_model_and_is_a_unit_vector(stage: Stage) -> None:
    address = await stage.serve(FakeBackend())
    client = stage.client("")
    with pytest.raises(BackendUnavailable) as caught:
        await client.embed(address, "text", timeout_s=5)
    assert caught.value.code == "FAILED_PRECONDITION"
    await client.load_model(address, MODEL, timeout_s=5)
    assert math.hypot(*await client.embed(address, "A man eats.", timeout_s=5)) == pytest.approx(1, abs=1e-5)


async def test_on_the_wire_the_model_path_is_the_file_less_its_name() -> None:
    server = GrpcServer(FakeBackend())
    port = free_port()
    running = await server.start(port)
    await GrpcBackendClient().load_model(f"127.0.0.1:{port}", MODEL, timeout_s=5)
    await running.stop(0)
    (options,) = server.seen
    assert (options.Model, options.ModelFile) == (MODEL.name, MODEL.file)
    assert (options.ModelPath, options.Tokenizer) == ("/models/key", "/models/key/t.json")
