"""A backend for scenarios: it tells what it was given, writes results, and misbehaves on request.

It runs from its own directory with grpc, protobuf and `backend_pb2` on its path; nothing of the worker is
there. Options of LoadModel steer it: `refuse:TEXT` fails the load, `load_s:SECONDS` takes that long,
`hang_free:true` never answers Free, `sick:true` answers Health with something else than OK. The prompt `die`
ends the process with code 7.
"""

import hashlib
import hmac
import importlib
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

pb: Any = importlib.import_module("backend_pb2")
TOKEN = os.environ.get("LOCALAI_GRPC_AUTH_TOKEN", "")
DIMENSIONS = 8


class PlayableBackend:
    """The RPCs by their names; each is called in a thread of the server's pool."""

    def __init__(self) -> None:
        self.loaded: Any = None
        self.options: dict[str, str] = {}

    def Health(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - the service's names
        return pb.Reply(message=b"sick" if self.options.get("sick") == "true" else b"OK")

    def LoadModel(self, request: Any, _context: Any) -> Any:  # noqa: N802
        options = dict(each.partition(":")[::2] for each in request.Options)
        time.sleep(float(options.get("load_s", "0")))
        if refusal := options.get("refuse"):
            return pb.Result(success=False, message=refusal)
        if request.ModelFile and not Path(request.ModelFile).exists():
            return pb.Result(success=False, message=f"no such file: {request.ModelFile}")
        self.loaded, self.options = request, options
        say(f"loaded {request.Model!r} from {request.ModelFile!r}")
        return pb.Result(success=True, message="Loading succeeded")

    def Free(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        if self.options.get("hang_free") == "true":
            threading.Event().wait()
        name = self.loaded.Model if self.loaded else ""
        self.loaded = None
        say(f"freed {name!r}")
        return pb.Result(success=True, message=f"freed {name!r}")

    def Status(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        state = pb.StatusResponse.READY if self.loaded else pb.StatusResponse.UNINITIALIZED
        return pb.StatusResponse(state=state)

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        """A JSON object: the prompt, the load's fields, and the hash of every file named in either."""
        if request.Prompt == "die":
            os._exit(7)
        model = self.require(request.ModelIdentity, context)
        files = [*request.Images, *request.Videos, *request.Audios]
        told = {
            "prompt": request.Prompt,
            "pid": os.getpid(),
            "model": model.Model,
            "model_path": model.ModelPath,
            "inputs": [sha256(path) for path in files],
            "fields": {field.name: value for field, value in model.ListFields() if isinstance(value, str)},
            "files": {
                field.name: sha256(value) for field, value in model.ListFields() if isinstance(value, str)
            },
            "options": {
                key: sha256(str(Path(model.ModelPath) / value)) for key, value in self.options.items()
            },
        }
        say(f"predict {request.Prompt!r}")
        return pb.Reply(message=json.dumps(told).encode())

    def Embedding(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.require(request.ModelIdentity, context)
        digest = hashlib.sha256(request.Embeddings.encode()).digest()
        return pb.EmbeddingResult(embeddings=[byte / 255 for byte in digest[:DIMENSIONS]])

    def GenerateImage(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.write_result(request, [request.src, *request.ref_images], context)

    def GenerateVideo(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.write_result(request, [request.start_image, request.end_image], context)

    def TTS(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.write_result(request, [request.model, f"{request.model}.json"], context)

    def SoundGeneration(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.write_result(request, [request.src], context)

    def AudioTranscription(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.require("", context)
        return pb.TranscriptResult(text=sha256(request.dst))

    def write_result(self, request: Any, inputs: list[str], context: Any) -> Any:
        """Write to `dst` a JSON object with the hashes of the inputs."""
        self.require("", context)
        told = {"rpc": type(request).__name__, "inputs": [sha256(path) for path in inputs if path]}
        Path(request.dst).write_text(json.dumps(told))
        return pb.Result(success=True, message="written")

    def require(self, identity: str, context: Any) -> Any:
        """The loaded model, if it is the one that is meant."""
        if self.loaded is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "model not loaded")
        if identity and identity != self.loaded.Model:
            mismatch = (
                f"model identity mismatch: asked for {identity!r}, this backend has {self.loaded.Model!r}"
            )
            context.abort(grpc.StatusCode.NOT_FOUND, mismatch)
        return self.loaded


class Service(grpc.GenericRpcHandler):
    """Hands calls to the methods of a `PlayableBackend`, after the token check."""

    def __init__(self, backend: PlayableBackend) -> None:
        self.methods = pb.DESCRIPTOR.services_by_name["Backend"].methods_by_name
        self.backend = backend

    def service(self, handler_call_details: Any) -> Any:
        """The handler of one call; None answers UNIMPLEMENTED."""
        name = handler_call_details.method.rpartition("/")[2]
        handle = getattr(self.backend, name, None) if name in self.methods else None
        if handle is None:
            return None
        given = dict(handler_call_details.invocation_metadata).get("authorization", "")

        def checked(request: Any, context: Any) -> Any:
            if TOKEN and not hmac.compare_digest(str(given).encode(), f"Bearer {TOKEN}".encode()):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid token")
            return handle(request, context)

        request = getattr(pb, self.methods[name].input_type.name)
        return grpc.unary_unary_rpc_method_handler(
            checked, request.FromString, lambda reply: reply.SerializeToString()
        )


def sha256(path: str) -> str:
    """The hash of the file; "" where there is none."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path and Path(path).is_file() else ""


def say(text: str) -> None:
    """One line of log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve on the address after `--addr` until SIGTERM."""
    address = sys.argv[sys.argv.index("--addr") + 1]
    server = grpc.server(ThreadPoolExecutor(16), handlers=[Service(PlayableBackend())])
    server.add_insecure_port(address)
    server.start()
    say(f"listening on {address}")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.wait_for_termination()


if __name__ == "__main__":
    main()
