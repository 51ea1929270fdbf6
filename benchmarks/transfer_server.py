"""One server for benchmarks/transfer.py, in a process of its own: prints its port, then, for every line of
its input, how long its event loop was held up at worst since the last one (s) and its memory (MiB).

The loop is watched from the first line on: looking at it five hundred times a second slows down what it does.

    .venv/bin/python -m benchmarks.transfer_server DIRECTORY [worker|uvicorn|granian]
"""

import sys
from pathlib import Path
from typing import Any

import anyio
import psutil
from anyio import to_thread

from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.http_server.routes import node_routes
from localai_worker.adapters.http_server.serve import HttpServer
from localai_worker.adapters.memory.bus import InMemoryBroker, InMemoryMessageBus
from localai_worker.domain.backend_logs import BackendLogs
from localai_worker.domain.readiness import Readiness
from localai_worker.domain.receive_files import ReceiveFiles
from localai_worker.domain.validate_paths import FileRoots

_STEP_S = 0.002


async def main(directory: Path, server: str) -> None:
    files = ReceiveFiles(
        LocalFileSystem(), FileRoots(directory, directory / "data", directory / "staging"), None
    )
    await files.prepare()
    readiness = Readiness(InMemoryMessageBus(InMemoryBroker()), files.filesystem, directory)
    app = node_routes(files, BackendLogs(), readiness, "")
    worst = [0.0]
    async with anyio.create_task_group() as tasks:
        if server == "worker":
            port = await tasks.start(HttpServer(app, "127.0.0.1", 0).serve)
        else:
            port = await tasks.start(_others[server], app)
        print(port, flush=True)
        watched = False
        while await to_thread.run_sync(sys.stdin.readline):
            if not watched:
                watched = True
                tasks.start_soon(_watch, worst)
            print(f"{worst[0]:.4f} {psutil.Process().memory_info().rss / 2**20:.1f}", flush=True)
            worst[0] = 0.0
        tasks.cancel_scope.cancel()


async def _watch(worst: list[float]) -> None:
    """How much later than asked for the event loop came back, at worst."""
    while True:
        before_s = anyio.current_time()
        await anyio.sleep(_STEP_S)
        worst[0] = max(worst[0], anyio.current_time() - before_s - _STEP_S)


async def _uvicorn(app: Any, *, task_status: anyio.abc.TaskStatus[int]) -> None:
    import uvicorn

    with anyio.CancelScope():
        port = _free_port()
        config = uvicorn.Config(app, port=port, http="httptools", log_level="error", lifespan="off")
        await _announced(uvicorn.Server(config).serve, port, task_status)


async def _granian(app: Any, *, task_status: anyio.abc.TaskStatus[int]) -> None:
    from granian.constants import Interfaces
    from granian.server.embed import Server

    port = _free_port()
    server = Server(app, port=port, interface=Interfaces.ASGINL, log_enabled=False)
    await _announced(server.serve, port, task_status)


async def _announced(serve: Any, port: int, task_status: anyio.abc.TaskStatus[int]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        with anyio.fail_after(20):
            while True:
                try:
                    await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    await anyio.sleep(0.02)
        task_status.started(port)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_others = {"uvicorn": _uvicorn, "granian": _granian}

if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]).resolve(), sys.argv[2] if len(sys.argv) > 2 else "worker")
