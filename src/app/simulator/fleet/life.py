"""One life of a worker on a simulated machine: assembled by the product's container, fenced, run, killed."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import anyio

from ....adapters.memory.backend_client import InMemoryBackendClient
from ....adapters.memory.bus import InMemoryMessageBus
from ....adapters.memory.frontend import InMemoryFrontend
from ....adapters.memory.network import InMemoryNetwork
from ....adapters.memory.processes import InMemoryProcesses
from ....domain.addresses import DEFAULT_BASE_PORT, HostPort
from ...container import Container, build_worker
from ...memory_container import in_memory
from ...resolve_settings import resolve_settings
from ...settings import Settings
from ...slim_injector import providers
from ...startup import leaves
from ...virtual_time import TaskFamily
from ...worker import Worker
from .broker import FleetBroker
from .fence import Fence, Watch
from .host import Host
from .plan import PORTS_PER_NODE
from .registry import BackendRegistry, FleetArtifacts

TOKEN = "fleet-token"  # noqa: S105 - nobody is kept out by it
REPLICAS_PER_MODEL = 2
STATE_PATH = Path("/node/state")
_ENVIRONMENT = {"PATH": "/bin"}
# What the parts are made of, and what reaches nothing outside.
_NO_PORTS = frozenset({"settings", "file_app", "machine", "program", "registry", "http", "spread"})


@dataclass(frozen=True)
class Surroundings:
    """What all workers of a fleet share."""

    broker: FleetBroker
    frontend: InMemoryFrontend
    backends: BackendRegistry


@dataclass(eq=False)
class Life:
    """A worker from its start to its end on `host`. `number` counts the lives of the host.

    `ready_s`: when it first took commands; None before. `failure`: what ended it, if anything did.
    """

    host: Host
    number: int
    fence: Fence
    bus: InMemoryMessageBus
    worker: Worker
    stopping: bool = False
    over: bool = False
    ready_s: float | None = None
    failure: BaseException | None = None
    _family: TaskFamily | None = None

    def begin(self, ended: Callable[["Life"], None]) -> None:
        """Let it run; `ended` hears when it has stopped or failed, not of a kill."""
        self._family = TaskFamily(self._run(ended))

    async def _run(self, ended: Callable[["Life"], None]) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(self.worker.run)
                self.ready_s = anyio.current_time()
        except (Exception, asyncio.CancelledError) as error:
            if self.fence.down:  # what the code of a dead process runs into means nothing
                return
            if isinstance(error, asyncio.CancelledError):
                raise
            self.failure = _first(error)
        finally:
            self.over = True
        if not self.fence.down:
            ended(self)

    def stop(self) -> None:
        """Ask it to stop in good order."""
        self.stopping = True
        self.worker.stop_requested.set()

    def kill(self) -> None:
        """End it as SIGKILL does: from now on nothing it does has an effect, and its sockets are closed."""
        self.fence.lower()
        self.bus.sever()
        self.host.machine.worker_died(STATE_PATH)

    async def clear_away(self) -> None:
        """After `kill`: end the tasks of the dead process, which achieve nothing any more."""
        if self._family is not None:
            await self._family.end()

    @property
    def is_up(self) -> bool:
        """Whether it takes commands."""
        return self.ready_s is not None and not (self.over or self.stopping or self.fence.down)


def _first(error: BaseException) -> BaseException:
    """The error itself, or the first of a group."""
    return leaves(error)[0] if isinstance(error, BaseExceptionGroup) else error


@cache
def _settings() -> Settings:
    environment = {
        "LOCALAI_REGISTER_TO": "http://frontend.invalid",
        "LOCALAI_WORKER_BUS": "memory",
        "LOCALAI_NODE_NAME": "node",
        "LOCALAI_REGISTRATION_TOKEN": TOKEN,
        "LOCALAI_ADVERTISE_ADDR": f"node.invalid:{DEFAULT_BASE_PORT}",
        "LOCALAI_GRPC_MAX_PORT": str(DEFAULT_BASE_PORT + PORTS_PER_NODE - 1),
        "LOCALAI_MAX_REPLICAS_PER_MODEL": str(REPLICAS_PER_MODEL),
        "LOCALAI_MODELS_PATH": "/node/models",
        "LOCALAI_BACKENDS_PATH": "/node/backends",
        "LOCALAI_WORKER_STATE_PATH": str(STATE_PATH),
    }
    return resolve_settings(
        {}, environment, cwd=Path("/node"), home=Path("/node"), hostname="node", pid=1
    ).settings


def settings_of(host: Host) -> Settings:
    """The settings of the worker on `host`."""
    settings = _settings()
    addresses = settings.addresses
    grpc, http = HostPort(host.name, addresses.grpc.port), HostPort(host.name, addresses.http.port)
    return replace(settings, node_name=host.name, addresses=replace(addresses, grpc=grpc, http=http))


async def begin(
    host: Host,
    number: int,
    around: Surroundings,
    watch: Callable[["Life"], Watch],
    killed: Callable[[], None],
) -> Life:
    """Assemble a worker on `host`; every port it has is fenced."""
    late = _LateWatch()
    fence = Fence(late, killed)
    bus = InMemoryMessageBus(around.broker)
    container = Container(settings=settings_of(host), environment=_ENVIRONMENT)
    parts = in_memory(container)
    parts.machine.override(providers.Object(host.machine))
    parts.filesystem.override(providers.Object(fence.guard(host.filesystem, "filesystem")))
    own: dict[str, Any] = {
        "clock": host.clock,
        "network": InMemoryNetwork(host.machine),
        "processes": InMemoryProcesses(host.machine, host.programs),
        "hardware": host.hardware,
        "backend_client": InMemoryBackendClient(host.machine, TOKEN),
        "frontend": host.client(around.frontend, TOKEN),
        "artifacts": FleetArtifacts(parts.filesystem(), around.backends),
        "gallery_source": around.backends.galleries,
    }
    for name in sorted(parts.providers.keys() - _NO_PORTS):
        port = own[name] if name in own else parts.providers[name]()
        if port is not None:
            container.providers[name].override(providers.Object(fence.guard(port, name)))
    container.bus.override(providers.Object(fence.guard(bus, "bus")))
    worker = await build_worker(container)
    life = Life(host, number, fence, bus, worker)
    late.target = watch(life)
    return life


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
