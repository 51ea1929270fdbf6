"""How the workers of a fleet are put together: all by one container, one after the other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import anyio

from ....adapters.memory.backend_client import InMemoryBackendClient
from ....adapters.memory.bus import InMemoryMessageBus
from ....adapters.memory.frontend import InMemoryFrontend
from ....adapters.memory.http_server import InMemoryHttpServer
from ....adapters.memory.network import InMemoryNetwork
from ....adapters.memory.processes import InMemoryProcesses
from ....domain.addresses import DEFAULT_BASE_PORT, HostPort
from ...container import Container, build_worker
from ...memory_container import MemoryParts, in_memory
from ...resolve_settings import resolve_settings
from ...settings import Settings
from ...slim_injector import providers
from .broker import FleetBroker
from .fence import Fence, Watch
from .host import STATE_PATH, Host
from .life import Life
from .objects import FleetObjectStore
from .plan import PORTS_PER_NODE, TOKEN
from .registry import BackendRegistry, FleetArtifacts

CACHE_LIMIT_BYTES = 600  # two models of `inference.model_file`

_REPLICAS_PER_MODEL = 2
_ENVIRONMENT = {"PATH": "/bin"}
# What the parts are made of, and what reaches nothing outside.
_NO_PORTS = frozenset({"settings", "file_app", "machine", "program", "registry", "spread"})


@dataclass(frozen=True)
class Surroundings:
    """What all workers of a fleet share."""

    broker: FleetBroker
    frontend: InMemoryFrontend
    backends: BackendRegistry
    objects: FleetObjectStore


def _settings() -> Settings:
    environment = {
        "LOCALAI_REGISTER_TO": "http://frontend.invalid",
        "LOCALAI_WORKER_BUS": "memory",
        "LOCALAI_NODE_NAME": "node",
        "LOCALAI_REGISTRATION_TOKEN": TOKEN,
        "LOCALAI_ADVERTISE_ADDR": f"node.invalid:{DEFAULT_BASE_PORT}",
        "LOCALAI_GRPC_MAX_PORT": str(DEFAULT_BASE_PORT + PORTS_PER_NODE - 1),
        "LOCALAI_MAX_REPLICAS_PER_MODEL": str(_REPLICAS_PER_MODEL),
        "LOCALAI_MODELS_PATH": "/node/models",
        "LOCALAI_BACKENDS_PATH": "/node/backends",
        "LOCALAI_WORKER_STATE_PATH": str(STATE_PATH),
        "LOCALAI_STORAGE_URL": "http://objects.invalid",
        "LOCALAI_STORAGE_BUCKET": "fleet",
        "LOCALAI_STORAGE_CACHE_LIMIT": str(CACHE_LIMIT_BYTES),
    }
    return resolve_settings(
        {}, environment, cwd=Path("/node"), home=Path("/node"), hostname="node", pid=1
    ).settings


@dataclass(eq=False)
class AssemblyLine:
    """Assembles workers by the product's container. To copy the container for each would take longer than all
    the rest of a start: one is used again and again, emptied in between.
    """

    around: Surroundings
    _base: Settings = field(default_factory=_settings)
    _container: Container = field(init=False)
    _parts: MemoryParts = field(init=False)
    _singletons: tuple[Any, ...] = field(init=False)
    _lock: anyio.Lock = field(default_factory=anyio.Lock)

    def __post_init__(self) -> None:
        self._container = Container(settings=self._base, environment=_ENVIRONMENT)
        self._parts = in_memory(self._container)
        found = chain.from_iterable(
            each.traverse(types=[providers.BaseSingleton]) for each in (self._container, self._parts)
        )
        self._singletons = tuple(dict.fromkeys(found))  # found once: it takes longer than to make them

    async def begin(
        self, host: Host, number: int, watch: Callable[[Life], Watch], killed: Callable[[], None]
    ) -> Life:
        """Assemble a worker on `host`; every port it has is fenced."""
        late = _LateWatch()
        fence = Fence(late, killed)
        bus = InMemoryMessageBus(self.around.broker)
        bus.offline = host.bus_cuts > 0
        async with self._lock:
            with self._made_for(host, fence, bus):
                worker = await build_worker(self._container)
            self._container.detection.reset_override()
        life = Life(host, number, fence, bus, worker)
        late.target = watch(life)
        return life

    @contextmanager
    def _made_for(self, host: Host, fence: Fence, bus: InMemoryMessageBus) -> Iterator[None]:
        """The container with everything around it replaced by what `host` has."""
        container, parts = self._container, self._parts
        for provider in self._singletons:
            provider.reset()
        filesystem = fence.guard(host.filesystem, "filesystem")
        base = {"machine": host.machine, "filesystem": filesystem}
        own: dict[str, Any] = {
            "clock": host.clock,
            "network": InMemoryNetwork(host.machine),
            "processes": InMemoryProcesses(host.machine, host.programs),
            "hardware": host.hardware,
            "backend_client": InMemoryBackendClient(host.machine, TOKEN),
            "frontend": host.client(self.around.frontend, TOKEN),
            "artifacts": FleetArtifacts(filesystem, self.around.backends),
            "gallery_source": self.around.backends.galleries,
            "http": InMemoryHttpServer(None),  # files are handed to the service behind it
            "object_store": self.around.objects if host.has_store else None,
            "ranged_files": host.ranged,
        }
        overridden = []

        def override(provider: Any, value: Any) -> None:
            provider.override(providers.Object(value))
            overridden.append(provider)

        try:
            override(container.settings, self._settings_of(host))
            for name, part in base.items():
                override(parts.providers[name], part)
            for name in sorted(parts.providers.keys() - _NO_PORTS):
                port = own[name] if name in own else parts.providers[name]()
                if port is not None:
                    override(container.providers[name], fence.guard(port, name))
            override(container.bus, fence.guard(bus, "bus"))
            yield
        finally:
            for provider in overridden:
                provider.reset_last_overriding()

    def _settings_of(self, host: Host) -> Settings:
        addresses = self._base.addresses
        grpc, http = HostPort(host.name, addresses.grpc.port), HostPort(host.name, addresses.http.port)
        url = self._base.storage_url if host.has_store else ""
        addresses = replace(addresses, grpc=grpc, http=http)
        return replace(self._base, node_name=host.name, addresses=addresses, storage_url=url)


class _LateWatch:
    """Stands in for the watch of a life that does not exist yet while its parts are made."""

    target: Watch | None = None

    def called(self, role: str, name: str, args: tuple[Any, ...]) -> None:
        if self.target:
            self.target.called(role, name, args)

    def returned(self, role: str, name: str, args: tuple[Any, ...], result: Any) -> None:
        if self.target:
            self.target.returned(role, name, args, result)

    def failed(self, role: str, name: str, args: tuple[Any, ...], error: Exception) -> None:
        if self.target:
            self.target.failed(role, name, args, error)
