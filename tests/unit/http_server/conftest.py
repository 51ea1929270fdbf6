"""A node's file routes, served twice: in memory without a socket, and from a real disk over a real one."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio import create_task_group

from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.http_server.routes import node_routes
from localai_worker.adapters.http_server.serve import HttpServer
from localai_worker.adapters.memory.bus import InMemoryBroker, InMemoryMessageBus
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain.backend_logs import BackendLogs
from localai_worker.domain.ports.filesystem import FileSystem
from localai_worker.domain.readiness import Readiness, ReadinessReport
from localai_worker.domain.receive_files import ReceiveFiles
from localai_worker.domain.validate_paths import FileRoots

TOKEN = "s3cret"


@dataclass
class Health(Readiness):
    """What the node says of itself, as the test wants it."""

    report: ReadinessReport = field(default_factory=ReadinessReport)

    async def check(self) -> ReadinessReport:
        return self.report


def healthy() -> Health:
    disk = InMemoryFileSystem()
    return Health(InMemoryMessageBus(InMemoryBroker()), disk, Path("/models"))


@dataclass
class Node:
    """The routes, what lies behind them, and a client; `request` sends paths exactly as given."""

    filesystem: FileSystem
    roots: FileRoots
    files: ReceiveFiles
    readiness: Health
    logs: BackendLogs
    client: httpx.AsyncClient
    every_file: Callable[[], list[Path]]
    link: Callable[[Path, Path], None]
    port: int = 0
    token: str = field(default=TOKEN)

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: Any = None,
    ) -> httpx.Response:
        sent = {"authorization": f"Bearer {self.token}", **(headers or {})}
        extensions = {"target": target.encode()}
        return await self.client.request(method, "/", headers=sent, content=content, extensions=extensions)

    async def content(self, path: Path) -> bytes:
        return await self.filesystem.read(path, limit_bytes=100 * 1024 * 1024)


class RawAsgiTransport(httpx.AsyncBaseTransport):
    """`httpx.ASGITransport`, but an explicit target is not normalised on its way."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = request.extensions.get("target", request.url.raw_path)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self._app({**scope, "raw_path": target.partition(b"?")[0]}, receive, send)

        return await httpx.ASGITransport(app).handle_async_request(request)


@asynccontextmanager
async def memory_node() -> AsyncIterator[Node]:
    disk = InMemoryFileSystem()
    roots = FileRoots(Path("/models"), Path("/data"), Path("/staging"))
    files = ReceiveFiles(disk, roots)
    await files.prepare()
    readiness, logs = healthy(), BackendLogs()
    transport = RawAsgiTransport(node_routes(files, logs, readiness, TOKEN))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        yield Node(disk, roots, files, readiness, logs, client, disk.files, disk.link)


@dataclass
class Switch:
    """An application that is another one for each test: starting and stopping a server takes 0.2 s."""

    port: int = 0
    app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="package")
def anyio_backend() -> str:
    """One event loop for the package, on which the one server runs."""
    return "asyncio"


@pytest.fixture(scope="package")
async def switch(anyio_backend: str) -> AsyncIterator[Switch]:
    """The server of the package."""
    switch = Switch()
    server = HttpServer(switch, "127.0.0.1", 0)
    async with create_task_group() as tasks:
        switch.port = await tasks.start(server.serve)
        yield switch
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def disk_node(tmp_path: Path, switch: Switch) -> AsyncIterator[Node]:
    disk = LocalFileSystem()
    roots = FileRoots(tmp_path / "models", tmp_path / "data", tmp_path / "staging")
    files = ReceiveFiles(disk, roots)
    await files.prepare()
    readiness, logs = healthy(), BackendLogs()
    switch.app = node_routes(files, logs, readiness, TOKEN)

    def every_file() -> list[Path]:
        return sorted(path for path in tmp_path.rglob("*") if path.is_symlink() or not path.is_dir())

    # Without certificates, which take longer to load than a test to run.
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{switch.port}", verify=False, trust_env=False)
    async with client:
        yield Node(disk, roots, files, readiness, logs, client, every_file, Path.symlink_to, switch.port)


@pytest.fixture(params=["memory", "disk"])
async def node(request: pytest.FixtureRequest, tmp_path: Path, switch: Switch) -> AsyncIterator[Node]:
    """A prepared node that asks for `TOKEN`."""
    async with memory_node() if request.param == "memory" else disk_node(tmp_path, switch) as served:
        yield served


@pytest.fixture
async def disk(tmp_path: Path, switch: Switch) -> AsyncIterator[Node]:
    """One on a real socket, for what only a connection can show."""
    async with disk_node(tmp_path, switch) as served:
        yield served
