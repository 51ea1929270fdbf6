"""The demo in one process: every adapter in memory, no network, no download, the same story."""

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx

from ...adapters.memory.bus import InMemoryMessageBus
from ...domain.galleries import Gallery
from ..container import Container, build_worker
from ..memory_container import MemoryParts, in_memory
from ..resolve_settings import resolve_settings
from ..simulator.frontend import SimulatedFrontend
from ..simulator.staging import HttpStager
from ..worker import Worker
from .leftovers import Leftover
from .story import BACKEND, DemoFailed

_NODE = "demo-node"
_INDEX = "file:///node/backends/gallery.yaml"
_PAYLOAD = "ocifile:///images/minilm.tar"
_STOPS_S = 30.0
_ENVIRONMENT = {
    "LOCALAI_WORKER_BUS": "memory",
    "LOCALAI_REGISTER_TO": "http://frontend.invalid",
    "LOCALAI_REGISTRATION_TOKEN": "demo-token",
    "LOCALAI_NODE_NAME": _NODE,
    "LOCALAI_ADDR": "node.invalid:50051",
    "LOCALAI_MODELS_PATH": "/node/models",
    "LOCALAI_BACKENDS_PATH": "/node/backends",
}


@dataclass
class MemoryStage:
    """A `Stage` around a `Container` whose outside is `parts`; `files` stand in for the model's."""

    container: Container
    parts: MemoryParts
    frontend: SimulatedFrontend
    tasks: anyio.abc.TaskGroup
    files: Mapping[str, Path]
    node_name: str = _NODE
    expected: tuple[float, float] | None = None
    _worker: Worker | None = field(default=None, init=False)
    _ended: anyio.Event = field(default_factory=anyio.Event, init=False)

    async def prepare_backend(self) -> tuple[Gallery, str]:
        self.parts.gallery_source().indexes[_INDEX] = [{"name": BACKEND, "uri": _PAYLOAD}]
        self.parts.artifacts().trees[_PAYLOAD] = {"run.sh": b"#!/bin/sh\n"}
        return Gallery("demo", _INDEX), "a fake backend that embeds by hashing word parts"

    async def start_worker(self) -> str:
        self._worker = await build_worker(self.container)
        await self.tasks.start(self._run, self._worker)
        return "in this process"

    async def _run(self, worker: Worker, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()
        await worker.run()
        self._ended.set()

    def model_files(self) -> Mapping[str, Path]:
        return self.files

    async def change_model(self) -> Mapping[str, Path]:
        return {}

    async def stop_worker(self) -> str:
        self.container.stop_requested().set()
        with anyio.move_on_after(_STOPS_S) as limit:
            await self._ended.wait()
        if limit.cancelled_caught:
            raise DemoFailed(f"the worker does not stop within {_STOPS_S:g} s")
        return "drained and deregistered"

    async def leftovers(self) -> Sequence[Leftover]:
        machine, filesystem = self.parts.machine(), self.parts.filesystem()
        left = [Leftover(f"process {process.pid}") for process in machine.running]
        left += [Leftover(f"file {path}") for path in filesystem.files() if path.name.startswith(".")]
        return left


@asynccontextmanager
async def memory_stage() -> AsyncIterator[MemoryStage]:
    """The stage; leaving it stops the worker if it still runs."""
    settings = resolve_settings(
        {}, _ENVIRONMENT, cwd=Path("/node"), home=Path("/node"), hostname="localhost", pid=0
    ).settings
    container = Container(settings=settings, environment={})
    parts = in_memory(container)
    bus = InMemoryMessageBus(container.broker())
    await bus.open()

    def stager(http_address: str) -> HttpStager:
        transport = httpx.ASGITransport(container.file_app())
        return HttpStager(http_address, settings.registration_token, transport=transport)

    frontend = SimulatedFrontend(
        bus=bus,
        registry=parts.registry(),
        inference=parts.backend_client(),
        token=settings.registration_token,
        stager=stager,
    )
    with tempfile.TemporaryDirectory(prefix="localai-worker-demo-") as directory:
        files = {}
        for name in ("model.safetensors", "tokenizer.json"):
            files[name] = Path(directory) / name
            files[name].write_text(f"a stand-in for {name}\n")
        async with anyio.create_task_group() as tasks:
            yield MemoryStage(container, parts, frontend, tasks, files)
            tasks.cancel_scope.cancel()
    await bus.close()
