"""A small real gRPC backend for benchmarks: it stamps the moment it listens."""

import sys
import time
from pathlib import Path

_BACKEND = '''"""Answers Health; writes the monotonic clock to a file as soon as it listens."""
import signal, sys, time
from concurrent import futures
import grpc

def answer(request, context):
    return b"\\n\\x02OK"  # Reply.message = "OK"

def empty(request, context):
    return b""

methods = {
    "Health": grpc.unary_unary_rpc_method_handler(answer),
    "Free": grpc.unary_unary_rpc_method_handler(empty),
}
address = sys.argv[sys.argv.index("--addr") + 1]
server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("backend.Backend", methods),))
server.add_insecure_port(address)
server.start()
with open(f"listening-{address.rpartition(':')[2]}", "w") as stamp:
    stamp.write(str(time.monotonic_ns()))
signal.signal(signal.SIGTERM, lambda *_: server.stop(0))
server.wait_for_termination()
'''


def write_backend(directory: Path) -> Path:
    """Write the backend into `directory` and return its run.sh."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "backend.py").write_text(_BACKEND)
    run = directory / "run.sh"
    run.write_text(f'#!/bin/sh\nexec {sys.executable} backend.py "$@"\n')
    run.chmod(0o755)
    return run


def listened_s(directory: Path, port: int) -> float:
    """When the backend on `port` began to listen, on `time.monotonic`'s clock."""
    return int((directory / f"listening-{port}").read_text()) / 1e9


def now_s() -> float:
    """The same clock here: it is one for all processes of a machine."""
    return time.monotonic_ns() / 1e9
