"""The example backend as users get it: packed, unpacked, started by its run.sh, called over gRPC."""

import gzip
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from localai_worker.adapters.grpc import backend_pb2 as pb
from localai_worker.app.demo.distributions import model_files
from localai_worker.app.demo.pack import pack_minilm
from localai_worker.domain.errors import FileUnreadable

EXAMPLE = Path(__file__).parents[2] / "examples/backends/minilm"
TOKEN = "s3cret"
MODEL = "minilm/model.safetensors"
READY_WITHIN_S = 30.0
ENDS_WITHIN_S = 20.0


@dataclass(frozen=True)
class RunningBackend:
    """A backend process and how to call it."""

    process: subprocess.Popen[bytes]
    port: int
    weights: Path
    channel: grpc.Channel

    def start(
        self, rpc: str, request: Any, reply: Any, *, token: str | None = TOKEN, ready: bool = False
    ) -> Any:
        """Begin a call; the frontend's options: plaintext, a bearer token, a deadline."""
        method: grpc.UnaryUnaryMultiCallable[Any, Any] = self.channel.unary_unary(
            f"/backend.Backend/{rpc}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        return method.future(request, timeout=READY_WITHIN_S, metadata=metadata, wait_for_ready=ready)

    def health(self, token: str | None = TOKEN, *, ready: bool = False) -> pb.Reply:
        reply: pb.Reply = self.start(
            "Health", pb.HealthMessage(), pb.Reply, token=token, ready=ready
        ).result()
        return reply

    def load(self, **options: Any) -> pb.Result:
        chosen = {"Model": MODEL, "ModelFile": str(self.weights)} | options
        result: pb.Result = self.start("LoadModel", pb.ModelOptions(**chosen), pb.Result).result()
        return result

    def embed(self, **options: Any) -> pb.EmbeddingResult:
        result: pb.EmbeddingResult = self.start(
            "Embedding", pb.PredictOptions(**options), pb.EmbeddingResult
        ).result()
        return result

    def free(self) -> pb.Result:
        result: pb.Result = self.start("Free", pb.HealthMessage(), pb.Result).result()
        return result

    def status(self) -> pb.StatusResponse:
        status: pb.StatusResponse = self.start("Status", pb.HealthMessage(), pb.StatusResponse).result()
        return status


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_sh(tree: Path, *arguments: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start run.sh as a worker does: in its directory, by its base name, with stdin closed."""
    with log.open("wb") as stderr:
        return subprocess.Popen(
            ["sh", "-c", 'exec ./run.sh "$@" <&-', "sh", *arguments],
            cwd=tree,
            env={"PATH": os.environ["PATH"], "PYTHON": sys.executable} | environment,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
        )


@contextmanager
def running(tree: Path, weights: Path, log: Path, token: str = TOKEN) -> Iterator[RunningBackend]:
    """A backend that answers Health, gone at the end."""
    port = free_port()
    process = run_sh(tree, "--addr", f"0.0.0.0:{port}", log=log, LOCALAI_GRPC_AUTH_TOKEN=token)
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 100)]
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            backend = RunningBackend(process, port, weights, channel)
            assert backend.health(ready=True).message == b"OK", log.read_text()
            yield backend
    finally:
        process.kill()
        process.wait(ENDS_WITHIN_S)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed backend, unpacked as an install does it."""
    scratch = tmp_path_factory.mktemp("minilm")
    digest = pack_minilm(EXAMPLE, scratch / "minilm.tar")
    with tarfile.open(scratch / "minilm.tar") as archive:
        [index] = [json.load(member) for member in [archive.extractfile("index.json")] if member]
        assert index["manifests"][0]["digest"] == digest
        [image] = [json.load(member) for member in [archive.extractfile("manifest.json")] if member]
        [layer] = [archive.extractfile(name) for name in image[0]["Layers"]]
        assert layer is not None
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer.read()))) as contents:
            contents.extractall(scratch / "tree", filter="data")
    return scratch / "tree"


@pytest.fixture(scope="module")
def weights() -> Path:
    return model_files()["model.safetensors"]


@pytest.fixture(scope="module")
def backend(tree: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    with running(tree, weights, tmp_path_factory.mktemp("log") / "stderr") as backend:
        yield backend


def cosine(left: pb.EmbeddingResult, right: pb.EmbeddingResult) -> float:
    """Both have length 1, so their product is the cosine."""
    return sum(a * b for a, b in zip(left.embeddings, right.embeddings, strict=True))


def test_the_packed_tree_is_complete_and_small(tree: Path) -> None:
    names = {path.name for path in tree.iterdir()}
    assert names >= {"run.sh", "backend.py", "model.py", "backend_pb2.py", "lib"}
    assert not list(tree.rglob("tests"))
    assert not list(tree.rglob("*.pyi"))
    assert sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) < 150e6


def test_packing_what_is_no_backend_names_the_missing_run_sh(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match=r"run\.sh: no such file"):
        pack_minilm(tmp_path, tmp_path / "image.tar")
    assert list(tmp_path.iterdir()) == []


def test_health_says_ok(backend: RunningBackend) -> None:
    assert backend.health().message == b"OK"


@pytest.mark.parametrize("token", [None, "", "s3cre", "s3cret ", "wrong"])
def test_health_without_the_right_token_is_refused(token: str | None, backend: RunningBackend) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        backend.health(token)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert caught.value.details() == "invalid token"


@pytest.mark.parametrize("rpc", ["LoadModel", "Embedding", "Free", "Status", "NoSuchRpc"])
def test_every_rpc_needs_the_token(rpc: str, backend: RunningBackend) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        backend.start(rpc, pb.HealthMessage(), pb.Result, token="wrong").result()
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_what_the_backend_does_not_offer_is_unimplemented(backend: RunningBackend) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        backend.start("Predict", pb.PredictOptions(Prompt="hi"), pb.Reply).result()
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_sentences_of_one_meaning_lie_close_together(backend: RunningBackend) -> None:
    assert backend.load() == pb.Result(success=True, message="Loading succeeded")
    eating = backend.embed(Embeddings="A man is eating food.")
    eats = backend.embed(Embeddings="A man eats something.")
    market = backend.embed(Embeddings="The stock market fell.")
    assert cosine(eating, eats) == pytest.approx(0.875, abs=0.005)
    assert cosine(eating, market) == pytest.approx(-0.036, abs=0.005)
    assert (eating.dim, eating.prompt_tokens, eating.layout) == (384, 8, pb.EmbeddingResult.FINAL)


def test_a_directory_loads_as_its_weights_do_and_tokens_as_their_text(backend: RunningBackend) -> None:
    backend.load()
    text = backend.embed(Embeddings="man")
    assert backend.load(ModelFile=str(backend.weights.parent)).success
    assert list(backend.embed(EmbeddingTokens=[2158]).embeddings) == list(text.embeddings)


def test_an_empty_text_is_embedded_too(backend: RunningBackend) -> None:
    backend.load()
    empty = backend.embed()
    assert (len(empty.embeddings), empty.prompt_tokens) == (384, 2)
    assert cosine(empty, empty) == pytest.approx(1, abs=1e-5)


def test_bad_tokens_are_refused(backend: RunningBackend) -> None:
    backend.load()
    for options in ({"EmbeddingTokens": [30522]}, {"EmbeddingTokens": [5], "Embeddings": "text"}):
        with pytest.raises(grpc.RpcError, match="EmbeddingTokens") as caught:
            backend.embed(**options)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_an_embedding_before_load_is_refused(backend: RunningBackend) -> None:
    backend.free()
    with pytest.raises(grpc.RpcError) as caught:
        backend.embed(Embeddings="hello")
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "model not loaded"


def test_a_request_for_another_model_is_refused(backend: RunningBackend) -> None:
    """G-F14: a misrouted request gets an error and not another model's numbers."""
    backend.load(Model="first")
    assert backend.embed(Embeddings="hello", ModelIdentity="first").dim == 384
    with pytest.raises(grpc.RpcError) as caught:
        backend.embed(Embeddings="hello", ModelIdentity="second")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert "model identity mismatch" in str(caught.value.details())
    backend.load(Model="second")
    assert backend.embed(Embeddings="hello", ModelIdentity="second").dim == 384


def test_a_load_that_fails_names_the_file_and_keeps_the_old_model(
    backend: RunningBackend, tmp_path: Path
) -> None:
    backend.load()
    failed = backend.load(Model="new", ModelFile=str(tmp_path / "model.safetensors"))
    assert not failed.success
    assert failed.message.startswith(f"{tmp_path}/model.safetensors is missing: stage model.safetensors")
    assert backend.embed(Embeddings="hello", ModelIdentity=MODEL).dim == 384


def test_free_gives_the_memory_back(backend: RunningBackend) -> None:
    backend.load()
    loaded = backend.status()
    assert loaded.state == pb.StatusResponse.READY
    assert loaded.memory.breakdown["weights"] > 90_000_000
    assert loaded.memory.total > loaded.memory.breakdown["weights"]
    assert backend.free() == pb.Result(success=True, message=f"freed '{MODEL}'")
    freed = backend.status()
    assert freed.state == pb.StatusResponse.UNINITIALIZED
    assert freed.memory.breakdown["weights"] == 0
    assert loaded.memory.total - freed.memory.total > 60_000_000
    assert backend.free().success


def test_health_and_status_answer_while_embeddings_queue(backend: RunningBackend) -> None:
    backend.load()
    long_text = pb.PredictOptions(Embeddings="word " * 300)
    queued = [backend.start("Embedding", long_text, pb.EmbeddingResult) for _ in range(6)]
    assert len(queued[0].result().embeddings) == 384
    assert backend.status().state == pb.StatusResponse.BUSY
    assert backend.health().message == b"OK"
    assert not all(call.done() for call in queued)
    assert [len(call.result().embeddings) for call in queued] == [384] * 6


def test_a_port_that_is_taken_ends_the_backend_with_a_reason(
    backend: RunningBackend, tree: Path, tmp_path: Path
) -> None:
    second = run_sh(tree, "--addr", f"0.0.0.0:{backend.port}", log=tmp_path / "log")
    assert second.wait(ENDS_WITHIN_S) == 1
    assert f"cannot listen on 0.0.0.0:{backend.port}, is the port taken?" in (tmp_path / "log").read_text()


def test_sigterm_ends_the_backend_with_status_0(tree: Path, weights: Path, tmp_path: Path) -> None:
    with running(tree, weights, tmp_path / "log", token="") as backend:
        assert "open to anyone: LOCALAI_GRPC_AUTH_TOKEN is not set" in (tmp_path / "log").read_text()
        assert backend.health(None).message == b"OK"
        backend.process.send_signal(signal.SIGTERM)
        assert backend.process.wait(ENDS_WITHIN_S) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--port", "50051"], "unrecognized arguments: --port 50051"),
        (["--ad", "0.0.0.0:50051"], "unrecognized arguments: --ad"),
        (["--addr", "0.0.0.0"], "'0.0.0.0' is not host:port"),
        (["--addr", "0.0.0.0:70000"], "port of 1 to 65535"),
    ],
)
def test_wrong_arguments_end_the_backend_with_its_usage(
    arguments: list[str], complaint: str, tree: Path, tmp_path: Path
) -> None:
    process = run_sh(tree, *arguments, log=tmp_path / "log")
    assert process.wait(ENDS_WITHIN_S) == 2
    assert complaint in (tmp_path / "log").read_text()
    assert "usage: minilm" in (tmp_path / "log").read_text()
