"""A cluster of real parts on this machine: a NATS server, the simulated frontend, worker processes.

The demo plays on it, system tests and benchmarks use it. Everything lives below one directory and ends
with the `async with` block, whatever happens.
"""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import Process

from ...adapters.grpc.backend_client import GrpcBackendClient
from ...adapters.http_server.serve import HttpServer
from ...adapters.memory.frontend import InMemoryFrontend
from ...adapters.nats.bus import NatsMessageBus
from ...adapters.system_clock import SystemClock
from .failures import PartFailed, last_lines
from .frontend import SimulatedFrontend
from .frontend_http import frontend_app
from .nats_server import NatsServer
from .nats_users import NatsUsers
from .port_blocks import BLOCK, PortBlocks

TOKEN = "demo-token"  # noqa: S105 - of clusters that live for seconds, on loopback
_COMES_UP_S = 20.0
_GOES_DOWN_S = 60.0


@dataclass
class WorkerProcess:
    """`localai-worker run` as a process of its own, in a group of its own."""

    name: str
    process: Process
    directory: Path
    log: Path
    base_port: int
    environment: Mapping[str, str] = field(default_factory=dict)  # what it was given besides the cluster's
    stopping: bool = False

    @property
    def http_address(self) -> str:
        """Where its file server listens."""
        return f"127.0.0.1:{self.base_port - 1}"

    @property
    def ports(self) -> range:
        """Its HTTP port and the ports of its backends."""
        return range(self.base_port - 1, self.base_port - 1 + BLOCK)

    async def watch(self) -> None:
        """Raise as soon as it ends without having been asked to.

        Raises:
            PartFailed: with how it ended and the end of its log.
        """
        code = await self.process.wait()
        if not self.stopping:
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            raise PartFailed(
                f"the worker process {self.name} ended ({how}) in the middle of its work", self.tail()
            )

    async def stop(self) -> int:
        """SIGTERM, and its exit code once it has ended.

        Raises:
            PartFailed: it is still there after a minute.
        """
        self.stopping = True
        self.process.send_signal(signal.SIGTERM)
        with anyio.move_on_after(_GOES_DOWN_S):
            return await self.process.wait()
        raise PartFailed(f"the worker process {self.name} does not end on SIGTERM", self.tail())

    def tail(self) -> str:
        """The last lines of its log."""
        return last_lines(self.log)


@dataclass
class LocalCluster:
    """The parts that every worker of the cluster shares."""

    directory: Path
    registry: InMemoryFrontend
    frontend: SimulatedFrontend
    nats: NatsServer
    frontend_port: int
    token: str
    documents: dict[str, bytes] = field(default_factory=dict)  # by name; the frontend serves them
    workers: list[WorkerProcess] = field(default_factory=list)
    ports: PortBlocks = field(default_factory=PortBlocks)

    @property
    def nats_port(self) -> int:
        """Where its NATS server listens."""
        return self.nats.port

    def publish(self, name: str, document: bytes) -> str:
        """Have the frontend's HTTP server serve `document`; its URL."""
        self.documents[name] = document
        return f"http://127.0.0.1:{self.frontend_port}/documents/{name}"

    def home(self, name: str) -> Path:
        """The directory of the worker `name`: `backends`, `models` and its other directories below it."""
        return self.directory / name

    async def start_worker(self, name: str, environment: Mapping[str, str] | None = None) -> WorkerProcess:
        """Start a worker process called `name`, on ports of its own.

        It is up when `SimulatedFrontend.wait_for_node` and then `wait_until_it_answers` have returned.
        """
        return await self._start(name, environment or {}, self.ports.take() + 1)

    async def restart_worker(self, worker: WorkerProcess) -> WorkerProcess:
        """Start a worker that has ended anew, with its settings, directories and ports."""
        await worker.process.wait()
        await worker.process.aclose()
        self.workers.remove(worker)
        return await self._start(worker.name, worker.environment, worker.base_port)

    async def _start(self, name: str, environment: Mapping[str, str], base_port: int) -> WorkerProcess:
        home = self.home(name)
        home.mkdir(parents=True, exist_ok=True)
        http_port = base_port - 1
        settings = {
            "LOCALAI_ADDR": f"127.0.0.1:{base_port}",
            "LOCALAI_HTTP_ADDR": f"127.0.0.1:{http_port}",
            "LOCALAI_GRPC_MAX_PORT": str(http_port + BLOCK - 1),
            "LOCALAI_NODE_NAME": name,
            "LOCALAI_REGISTER_TO": f"http://127.0.0.1:{self.frontend_port}",
            "LOCALAI_REGISTRATION_TOKEN": self.token,
            "LOCALAI_NATS_URL": f"nats://127.0.0.1:{self.nats_port}",
            "LOCALAI_BACKENDS_PATH": str(home / "backends"),
            "LOCALAI_MODELS_PATH": str(home / "models"),
            "LOCALAI_HEARTBEAT_INTERVAL": "2s",
            "LOCALAI_WORKER_ADOPTION_WINDOW": "30s",  # nothing outlives the cluster for long
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("LOCALAI_")}
        log = home / "worker.log"
        with log.open("ab") as output:
            process = await anyio.open_process(
                [sys.executable, "-m", "localai_worker", "run"],
                cwd=home,
                env={**inherited, **settings, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        worker = WorkerProcess(name, process, home, log, base_port, environment)
        self.workers.append(worker)
        return worker


@asynccontextmanager
async def local_cluster(
    directory: Path, *, token: str = TOKEN, users: NatsUsers | None = None
) -> AsyncIterator[LocalCluster]:
    """Real parts below `directory`, which is the caller's to make and remove.

    With `users` the NATS server takes only those, and the frontend mints one for every node.

    Raises:
        ServerMissing, PartFailed: the NATS server cannot be started.
    """
    ports = PortBlocks()
    nats = NatsServer(directory, ports.take(), users.server_config if users else "")
    async with anyio.create_task_group() as tasks:
        registry = InMemoryFrontend(
            token=token, clock=SystemClock(), credentials=users.mint_worker if users else None
        )
        documents: dict[str, bytes] = {}
        http = HttpServer(frontend_app(registry, documents), "127.0.0.1", 0)
        frontend_port: int = await tasks.start(http.serve)
        bus = NatsMessageBus(f"nats://127.0.0.1:{nats.port}", client_name="simulated-frontend")
        frontend = SimulatedFrontend(
            bus=bus, registry=registry, inference=GrpcBackendClient(token), token=token
        )
        cluster = LocalCluster(
            directory, registry, frontend, nats, frontend_port, token, documents, ports=ports
        )
        try:
            await nats.start()
            with anyio.fail_after(_COMES_UP_S):
                if users:
                    await bus.login(users.mint("frontend"))
                await bus.open()
            yield cluster
        finally:
            with anyio.CancelScope(shield=True):
                for worker in cluster.workers:
                    await _end(worker)
                await bus.close()
                await nats.stop()
            ports.close()
            tasks.cancel_scope.cancel()


async def _end(worker: WorkerProcess) -> None:
    """Whatever state it is in: TERM, ten seconds, KILL."""
    worker.stopping = True
    if worker.process.returncode is None:
        worker.process.terminate()
        with anyio.move_on_after(10) as limit:
            await worker.process.wait()
        if limit.cancelled_caught:
            worker.process.kill()
    await worker.process.wait()
    await worker.process.aclose()
