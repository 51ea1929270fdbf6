"""Verbs that break things: only for a cluster that runs on this machine."""

import os
import signal
from dataclasses import dataclass

import anyio
import anyio.lowlevel
import psutil

from ....adapters.memory.frontend import InMemoryFrontend
from ..failures import SimulationError
from ..local_cluster import LocalCluster, WorkerProcess
from .verbs import verb

_ENDS_S = 90.0


@dataclass
class FaultVerbs:
    """Kills, outages and restarts of the parts of `cluster`."""

    cluster: LocalCluster

    @verb
    async def start_worker(self, node: str) -> object:
        """Start a worker that ended, with its settings, directories and ports."""
        worker = await self.cluster.restart_worker(self._worker(node))
        return {"pid": worker.process.pid}

    @verb
    async def kill_worker(self, node: str) -> object:
        """SIGKILL for a worker; its backends are not touched."""
        worker = self._worker(node)
        worker.stopping = True
        worker.process.kill()
        await worker.process.wait()
        return {}

    @verb
    async def stop_worker(self, node: str) -> object:
        """SIGTERM for a worker; its exit code."""
        return {"exit_code": await self._worker(node).stop()}

    @verb
    async def wait_worker(self, node: str) -> object:
        """Wait for the end of a worker that was asked to stop; its exit code."""
        worker = self._worker(node)
        worker.stopping = True
        with anyio.move_on_after(_ENDS_S):
            return {"exit_code": await worker.process.wait()}
        raise SimulationError(f"worker {node} still runs after {_ENDS_S:g} s")

    @verb
    async def pid(self, address: str) -> object:
        """The process that listens at a local address."""
        await anyio.lowlevel.checkpoint()
        return {"pid": _listener(address)}

    @verb
    async def kill_backend(self, address: str, signal_name: str = "KILL") -> object:
        """A signal for the process that listens at a local address."""
        await anyio.lowlevel.checkpoint()
        os.kill(_listener(address), signal.Signals[f"SIG{signal_name}"])
        return {}

    @verb
    async def nats(self, state: str) -> object:
        """Take the NATS server away (`down`) or bring it back (`up`)."""
        if state not in {"up", "down"}:
            raise SimulationError(f"nats: {state} is neither up nor down")
        await (self.cluster.nats.start() if state == "up" else self.cluster.nats.stop())
        return {}

    @verb
    async def frontend(
        self, state: str = "", answers: int = 0, times: int = 1, slow: float | None = None
    ) -> object:
        """Change the frontend: `offline`, `online`, `wiped` (no node known), its next answers, its pace."""
        await anyio.lowlevel.checkpoint()
        registry = self.cluster.registry
        if answers:
            registry.answer_next(answers, times=times)
        if slow is not None:
            registry.slow_s = slow
        _set(registry, state)
        return {}

    @verb
    async def calls(self, node: str) -> object:
        """The names of the endpoints a node called, oldest first."""
        await anyio.lowlevel.checkpoint()
        row = self.cluster.registry.named(node)
        ids = {row.id if row else "", ""}
        return [call.endpoint for call in self.cluster.registry.calls if call.node_id in ids]

    @verb
    async def log(self, node: str) -> object:
        """All that a worker logged."""
        await anyio.lowlevel.checkpoint()
        return self._worker(node).log.read_text(errors="replace")

    @verb
    async def plant(self, node: str, path: str, text: str = "", link: str = "") -> object:
        """Put a file, or a link, below a worker's home, past the worker; its models lie in `models`."""
        await anyio.lowlevel.checkpoint()
        planted = self._worker(node).directory / path
        planted.parent.mkdir(parents=True, exist_ok=True)
        planted.symlink_to(link) if link else planted.write_text(text)
        return {"path": str(planted)}

    def _worker(self, node: str) -> WorkerProcess:
        for worker in self.cluster.workers:
            if worker.name == node:
                return worker
        raise SimulationError(f"no worker process {node} was started here")


def _set(registry: InMemoryFrontend, state: str) -> None:
    if state in {"offline", "online"}:
        registry.offline = state == "offline"
    elif state == "wiped":
        registry.nodes.clear()
    elif state:
        raise SimulationError(f"frontend: {state} is none of offline, online, wiped")


def _listener(address: str) -> int:
    port = int(address.rpartition(":")[2])
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.pid and connection.laddr[1:] == (port,):
            return connection.pid
    raise SimulationError(f"nobody listens at {address}")
