"""A worker with every adapter in memory: for demos, users' tests and the simulator."""

from typing import Any

from ..adapters.memory.archives import InMemoryArchives
from ..adapters.memory.artifacts import InMemoryArtifacts, InMemoryAttachments
from ..adapters.memory.backend_client import InMemoryBackendClient
from ..adapters.memory.custody import InMemoryKeeper, InMemoryStateLock
from ..adapters.memory.downloads import InMemoryDownloads
from ..adapters.memory.file_locks import InMemoryFileLocks
from ..adapters.memory.filesystem import InMemoryFileSystem
from ..adapters.memory.frontend import InMemoryFrontend
from ..adapters.memory.frontend_client import InMemoryFrontendClient
from ..adapters.memory.galleries import InMemoryGalleries
from ..adapters.memory.hardware import InMemoryHardware
from ..adapters.memory.http_server import InMemoryHttpServer
from ..adapters.memory.loop_clock import LoopClock
from ..adapters.memory.machine import FakeProgram, InMemoryMachine
from ..adapters.memory.model_hub import InMemoryModelHub
from ..adapters.memory.network import InMemoryNetwork
from ..adapters.memory.object_store import InMemoryObjectStore
from ..adapters.memory.oom import InMemoryOomKills
from ..adapters.memory.open_files import InMemoryOpenFiles
from ..adapters.memory.outputs import InMemoryOutputFiles
from ..adapters.memory.processes import InMemoryProcesses
from ..adapters.memory.ranged_files import InMemoryRangedFiles
from ..adapters.memory.signatures import InMemorySignatures
from .container import Container
from .settings import Settings
from .slim_injector import containers, providers


def _frontend_client(registry: InMemoryFrontend, settings: Settings) -> InMemoryFrontendClient:
    return InMemoryFrontendClient(registry, settings.registration_token)


def _registry(settings: Settings) -> InMemoryFrontend:
    return InMemoryFrontend(token=settings.registration_token)


def _client(machine: InMemoryMachine, settings: Settings) -> InMemoryBackendClient:
    return InMemoryBackendClient(machine, settings.registration_token)


def _object_store(settings: Settings) -> InMemoryObjectStore | None:
    return InMemoryObjectStore() if settings.storage_url else None


def _state_lock(machine: InMemoryMachine, settings: Settings) -> InMemoryStateLock:
    return InMemoryStateLock(machine, settings.state_path)


def _keeper(machine: InMemoryMachine, settings: Settings) -> InMemoryKeeper:
    return InMemoryKeeper(machine, settings.state_path, settings.adoption_window_s)


def _exactly(pause_s: float) -> float:
    """No chance in a world that is to be repeated."""
    return pause_s


class MemoryParts(containers.DeclarativeContainer):
    """Stand-ins for everything outside a worker; each provider bears the name of the one it replaces.

    `machine` and `registry` (the frontend) are what they share. Every installed backend runs `program`
    unless `processes().programs` has one under its name.
    """

    settings = providers.Dependency(instance_of=Settings)
    file_app: providers.Dependency[Any] = providers.Dependency()

    machine = providers.Singleton(InMemoryMachine)
    program = providers.Singleton(FakeProgram, listens_after_s=0.05)
    registry = providers.Singleton(_registry, settings)

    clock = providers.Singleton(LoopClock)
    filesystem = providers.Singleton(InMemoryFileSystem, clock=clock)
    network = providers.Singleton(InMemoryNetwork, machine)
    processes = providers.Singleton(InMemoryProcesses, machine, default=program)
    state_lock = providers.Singleton(_state_lock, machine, settings)
    keeper = providers.Singleton(_keeper, machine, settings)
    hardware = providers.Singleton(InMemoryHardware)
    oom_kills = providers.Singleton(InMemoryOomKills, machine)
    output_files = providers.Singleton(InMemoryOutputFiles, machine)
    backend_client = providers.Singleton(_client, machine, settings)
    frontend = providers.Singleton(_frontend_client, registry, settings)
    artifacts = providers.Singleton(InMemoryArtifacts, filesystem)
    gallery_source = providers.Singleton(InMemoryGalleries)
    attachments = providers.Singleton(InMemoryAttachments)
    signatures = providers.Singleton(InMemorySignatures)
    downloads = providers.Singleton(InMemoryDownloads)
    archives = providers.Singleton(InMemoryArchives, filesystem)
    model_hub = providers.Singleton(InMemoryModelHub, downloads)
    file_locks = providers.Singleton(InMemoryFileLocks, filesystem)
    http = providers.Singleton(InMemoryHttpServer, file_app)
    object_store = providers.Singleton(_object_store, settings)
    ranged_files = providers.Singleton(InMemoryRangedFiles, filesystem)
    open_files = providers.Singleton(InMemoryOpenFiles)
    spread = providers.Object(_exactly)


def in_memory(container: Container) -> MemoryParts:
    """Put everything outside the worker of `container` into memory and return the stand-ins.

    Its settings should say `bus=memory`; the broker is `container.broker()`.
    """
    parts = MemoryParts(settings=container.settings, file_app=container.file_app)
    for name, provider in parts.providers.items():
        if name in container.providers and name not in {"settings", "file_app"}:
            container.providers[name].override(provider)
    return parts
