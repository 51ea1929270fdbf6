"""The committed gRPC messages: generated from the committed proto, and on the wire as LocalAI has them."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.message import Message

from localai_worker.adapters.grpc import backend_pb2 as pb

SOURCE = Path(__file__).parents[2] / "src/adapters/grpc"


def test_the_generated_files_are_what_make_proto_writes(tmp_path: Path) -> None:
    protoc = [sys.executable, "-m", "grpc_tools.protoc"]
    outputs = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([*protoc, f"-I{SOURCE}", *outputs, "backend.proto"], check=True, timeout=60)
    for name in ("backend_pb2.py", "backend_pb2.pyi"):
        assert (tmp_path / name).read_text() == (SOURCE / name).read_text(), f"run `make proto`: {name}"


# Written by hand from the numbers and types of LocalAI's backend.proto: tag = number << 3 | wire type.
WIRE = [
    (pb.HealthMessage(), b""),
    (pb.Reply(message=b"OK"), b"\x0a\x02OK"),
    (pb.Result(message="m", success=True), b"\x0a\x01m\x10\x01"),
    (pb.ModelOptions(Model="m"), b"\x0a\x01m"),
    (pb.ModelOptions(Threads=2), b"\x78\x02"),
    (pb.ModelOptions(ModelFile="f"), b"\xaa\x01\x01f"),
    (pb.ModelOptions(Tokenizer="t"), b"\x92\x02\x01t"),
    (pb.ModelOptions(ModelPath="p"), b"\xda\x03\x01p"),
    (pb.ModelOptions(Options=["o"]), b"\xf2\x03\x01o"),
    (pb.ModelOptions(Proxy=pb.ProxyOptions(cache_prompt=True)), b"\xd2\x04\x02\x40\x01"),
    (pb.PredictOptions(Prompt="p"), b"\x0a\x01p"),
    (pb.PredictOptions(EmbeddingTokens=[7, 300]), b"\x9a\x02\x03\x07\xac\x02"),
    (pb.PredictOptions(Embeddings="e"), b"\xa2\x02\x01e"),
    (pb.PredictOptions(ModelIdentity="i"), b"\xb2\x03\x01i"),
    (pb.EmbeddingResult(embeddings=[1.0]), b"\x0a\x04\x00\x00\x80\x3f"),
    (
        pb.EmbeddingResult(tokens=1, dim=2, prompt_tokens=3, layout=pb.EmbeddingResult.PER_TOKEN),
        b"\x10\x01\x18\x02\x20\x03\x28\x02",
    ),
    (pb.StatusResponse(state=pb.StatusResponse.READY), b"\x08\x02"),
    (pb.StatusResponse(state=pb.StatusResponse.ERROR), b"\x08" + b"\xff" * 9 + b"\x01"),
    (
        pb.StatusResponse(memory=pb.MemoryUsageData(total=5, breakdown={"w": 4})),
        b"\x12\x09\x08\x05\x12\x05\x0a\x01w\x10\x04",
    ),
    (pb.TokenizationResponse(length=1, tokens=[9]), b"\x08\x01\x12\x01\x09"),
    (pb.RerankRequest(query="q", documents=["d"], top_n=1), b"\x0a\x01q\x12\x01d\x18\x01"),
]


@pytest.mark.parametrize(("message", "encoded"), WIRE, ids=lambda value: type(value).__name__)
def test_a_message_has_localais_bytes(message: Message, encoded: bytes) -> None:
    assert message.SerializeToString(deterministic=True) == encoded
    assert type(message).FromString(encoded) == message


def test_a_field_of_a_later_version_is_skipped() -> None:
    later = b"\x9a\x3f\x03new" + pb.Result(success=True).SerializeToString()  # field 1011, text
    assert pb.Result.FromString(later).success


def test_every_method_has_the_path_that_clients_call() -> None:
    service = pb.DESCRIPTOR.services_by_name["Backend"]
    assert service.full_name == "backend.Backend"
    assert {"Health", "Free", "LoadModel", "Embedding", "Status", "Predict", "PredictStream"} <= {
        method.name for method in service.methods
    }
    assert [method.name for method in service.methods if method.server_streaming] == ["PredictStream"]
