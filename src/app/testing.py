"""For your own tests: a worker in memory, its surroundings, and the frontend's end of its bus.

    async def test_my_frontend_starts_models() -> None:
        async with memory_node() as node:
            node.offer("whisper", FakeProgram(listens_after_s=2))
            reply = await node.install("whisper", "large-v3")
            assert reply.success and node.keys == ["large-v3#0"]

Every part is a fake that really stores, listens, dies and fails, and one that the worker's own contract tests
hold to the same promises as the real adapter. With `VIRTUAL_TIME` as anyio's backend no test waits.
The same things are there as pytest fixtures: see `localai_worker.app.pytest_plugin` and examples/testing.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio

from ..adapters.memory.backend import FakeBackend
from ..adapters.memory.backend_client import InMemoryBackendClient
from ..adapters.memory.bus import InMemoryBroker, InMemoryMessageBus
from ..adapters.memory.frontend import InMemoryFrontend
from ..adapters.memory.machine import FakeProcess, FakeProgram, InMemoryMachine
from ..domain.galleries import Gallery
from ..domain.messages.backend import BackendInstallReply, BackendInstallRequest
from ..domain.messages.subjects import NodeSubjects
from ..domain.messages.wire import WireObject
from .container import Container, build_worker
from .memory_container import MemoryParts, in_memory
from .resolve_settings import resolve_settings
from .settings import Settings
from .virtual_time import VIRTUAL_TIME, AnyioBackend, VirtualTimeLoop
from .worker import Worker

__all__ = [
    "GALLERIES",
    "GALLERY",
    "VIRTUAL_TIME",
    "AnyioBackend",
    "FakeBackend",
    "FakeProcess",
    "FakeProgram",
    "InMemoryBackendClient",
    "InMemoryBroker",
    "InMemoryFrontend",
    "InMemoryMachine",
    "InMemoryMessageBus",
    "MemoryNode",
    "VirtualTimeLoop",
    "memory_node",
    "memory_settings",
]

GALLERY = Gallery("test", "file:///node/backends/gallery.yaml")
GALLERIES = f'[{{"name":"{GALLERY.name}","url":"{GALLERY.url}"}}]'

Answer = TypeVar("Answer", bound=WireObject)


def memory_settings(**environment: str) -> Settings:
    """Settings of a worker in memory; keywords are environment variables."""
    base = {
        "LOCALAI_REGISTER_TO": "http://frontend:8080",
        "LOCALAI_NATS_URL": "",
        "LOCALAI_WORKER_BUS": "memory",
        "LOCALAI_NODE_NAME": "node-1",
        "LOCALAI_REGISTRATION_TOKEN": "s3cret",
        "LOCALAI_ADVERTISE_ADDR": "gpu1.example.com:50051",
        "LOCALAI_MODELS_PATH": "/node/models",
        "LOCALAI_BACKENDS_PATH": "/node/backends",
        "LOCALAI_BACKEND_GALLERIES": GALLERIES,
    }
    resolved = resolve_settings(
        {}, {**base, **environment}, cwd=Path("/node"), home=Path("/home/x"), hostname="host", pid=1
    )
    return resolved.settings


@dataclass
class MemoryNode:
    """A worker in memory, its surroundings, and a bus for whoever plays the frontend.

    `parts` are the fakes around it: `parts.filesystem()`, `parts.hardware()` and so on.
    """

    container: Container
    parts: MemoryParts
    worker: Worker
    bus: InMemoryMessageBus

    @property
    def machine(self) -> InMemoryMachine:
        return self.parts.machine()

    @property
    def registry(self) -> InMemoryFrontend:
        return self.parts.registry()

    @property
    def subjects(self) -> NodeSubjects:
        return NodeSubjects(self.worker.enrolment.node_id)

    @property
    def endpoints(self) -> list[str]:
        """The calls the frontend got, in order."""
        return [call.endpoint for call in self.registry.calls]

    def offer(self, name: str, program: FakeProgram | None = None, *, alias: str = "") -> None:
        """List the backend `name` in the gallery; it runs `program`."""
        uri = f"ocifile:///images/{name}.tar"
        self._list({"name": name, "uri": uri, "alias": alias})
        self.parts.artifacts().trees[uri] = {"run.sh": b"#!/bin/sh\n"}
        if program is not None:
            self.parts.processes().programs[name] = program

    def offer_meta(self, name: str, concrete: str) -> None:
        """List the meta backend `name` in the gallery; on every host it is the backend `concrete`."""
        self._list({"name": name, "capabilities": {"default": concrete}})

    def _list(self, entry: Mapping[str, object]) -> None:
        source = self.parts.gallery_source()
        source.indexes[GALLERY.url] = [*source.indexes.get(GALLERY.url, ()), entry]

    @property
    def directories(self) -> list[str]:
        """What lies below the backends directory, by name."""
        top = self.container.settings().backends_path
        files = self.parts.filesystem().files(top)
        return sorted({path.relative_to(top).parts[0] for path in files})

    async def ask(
        self, subject: str, message: WireObject, reply: type[Answer], timeout_s: float = 120
    ) -> Answer:
        """Send a request as a frontend would and return the reply."""
        return reply.from_wire(await self.bus.request(subject, message.to_wire(), timeout_s=timeout_s))

    async def install(self, backend: str, model: str = "", **fields: object) -> BackendInstallReply:
        """Send one install as a frontend would and return the reply."""
        request = BackendInstallRequest(backend=backend, model_id=model, **fields)  # type: ignore[arg-type]
        return await self.ask(self.subjects.install, request, BackendInstallReply)

    @property
    def keys(self) -> list[str]:
        """The keys of the replicas that are up, in the order of their starts."""
        return [str(replica.key) for replica in self.worker.supervisor.replicas]


@asynccontextmanager
async def memory_node(**environment: str) -> AsyncIterator[MemoryNode]:
    """A worker that is up; leaving stops it in good order. Keywords are environment variables."""
    container = Container(settings=memory_settings(**environment), environment={"PATH": "/bin"})
    parts = in_memory(container)
    worker = await build_worker(container)
    bus = InMemoryMessageBus(container.broker())
    await bus.open()
    async with anyio.create_task_group() as tasks:
        await tasks.start(worker.run)
        yield MemoryNode(container, parts, worker, bus)
        worker.stop_requested.set()
    await bus.close()
