"""A worker with every adapter in memory: for demos, users' tests and the simulator."""

from typing import Any

from dependency_injector import providers

from ..adapters.memory.artifacts import InMemoryArtifacts, InMemoryGalleries
from ..adapters.memory.backend_client import InMemoryBackendClient
from ..adapters.memory.filesystem import InMemoryFileSystem
from ..adapters.memory.frontend import InMemoryFrontend
from ..adapters.memory.frontend_client import InMemoryFrontendClient
from ..adapters.memory.hardware import InMemoryHardware
from ..adapters.memory.http_server import InMemoryHttpServer
from ..adapters.memory.loop_clock import LoopClock
from ..adapters.memory.machine import FakeProgram, InMemoryMachine
from ..adapters.memory.network import InMemoryNetwork
from ..adapters.memory.processes import InMemoryProcesses
from .container import Container
from .settings import Settings


def _frontend_client(registry: InMemoryFrontend, settings: Settings) -> InMemoryFrontendClient:
    return InMemoryFrontendClient(registry, settings.registration_token)


def _registry(settings: Settings) -> InMemoryFrontend:
    return InMemoryFrontend(token=settings.registration_token)


def _client(machine: InMemoryMachine, settings: Settings) -> InMemoryBackendClient:
    return InMemoryBackendClient(machine, settings.registration_token)


def _http_server(app: Any) -> InMemoryHttpServer:
    return InMemoryHttpServer(app)


class InMemoryContainer(Container):
    """`Container` with nothing real outside: the machine, its disk, the frontend and the bus are objects.

    Needs `bus=memory` in its settings. Every installed backend runs `program`.
    """

    machine = providers.Singleton(InMemoryMachine)
    program = providers.Singleton(FakeProgram, listens_after_s=0.05)
    registry = providers.Singleton(_registry, Container.settings)
    clock = providers.Singleton(LoopClock)
    filesystem = providers.Singleton(InMemoryFileSystem)
    network = providers.Singleton(InMemoryNetwork, machine)
    processes = providers.Singleton(InMemoryProcesses, machine, default=program)
    hardware = providers.Singleton(InMemoryHardware)
    backend_client = providers.Singleton(_client, machine, Container.settings)
    frontend = providers.Singleton(_frontend_client, registry, Container.settings)
    artifacts = providers.Singleton(InMemoryArtifacts, filesystem)
    gallery_source = providers.Singleton(InMemoryGalleries)
    http = providers.Singleton(_http_server, Container.file_app)
