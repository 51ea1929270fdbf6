"""Worker processes as system tests talk to them."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import psutil
import pytest

from localai_worker.app.simulator.failures import CommandRefused
from localai_worker.app.simulator.local_cluster import LocalCluster, WorkerProcess
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.messages.subjects import NodeSubjects
from localai_worker.domain.node import NodeId

PATIENCE_S = 30.0


async def until(condition: Callable[[], object]) -> None:
    """Wait for `condition`, half a minute at most."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await anyio.sleep(0.02)


@dataclass(frozen=True)
class Node:
    """A worker process that takes commands, and the frontend's means to give them."""

    cluster: LocalCluster
    worker: WorkerProcess
    id: NodeId

    @property
    def backends(self) -> Path:
        return self.worker.directory / "backends"

    @property
    def subjects(self) -> NodeSubjects:
        return NodeSubjects(self.id)

    @property
    def log(self) -> str:
        return log_of(self.worker)

    def said(self, text: str, *, since: int = 0) -> bool:
        """Whether the log has `text` after its first `since` characters."""
        return text in self.log[since:]

    @property
    def endpoints(self) -> list[str]:
        """The calls the frontend got from it, in order, without the registration."""
        return [call.endpoint for call in self.cluster.registry.calls if call.node_id == self.id]

    async def install(self, backend: str, model: str = "", galleries: Sequence[Gallery] = ()) -> str:
        """Have `backend` started for `model`, or for a model of its own name; the address to dial."""
        frontend = self.cluster.frontend
        return await frontend.install(self.id, backend, model_id=model or backend, galleries=galleries)

    async def refused_install(self, backend: str, galleries: Sequence[Gallery] = (), uri: str = "") -> str:
        """The error text of an install that must fail."""
        with pytest.raises(CommandRefused) as refused:
            await self.cluster.frontend.install(
                self.id, backend, model_id=backend, galleries=galleries, uri=uri
            )
        return refused.value.error

    async def listed(self) -> list[str]:
        """The names backend.list tells; it also proves that the worker answers."""
        return [row.name for row in await self.cluster.frontend.list_backends(self.id)]

    async def signalled(self, number: signal.Signals) -> int:
        """Send the worker a signal that ends it; its exit code."""
        self.worker.stopping = True
        self.worker.process.send_signal(number)
        return await exit_code(self.worker)


def log_of(worker: WorkerProcess) -> str:
    """All that the worker logged."""
    return worker.log.read_text()


async def exit_code(worker: WorkerProcess) -> int:
    """Wait for the worker's end."""
    worker.stopping = True
    with anyio.fail_after(PATIENCE_S):
        return await worker.process.wait()


async def start_node(cluster: LocalCluster, name: str, environment: Mapping[str, str] | None = None) -> Node:
    """A worker process, once it takes commands."""
    worker = await cluster.start_worker(name, with_python(environment))
    await until(lambda: "worker ready" in log_of(worker) or worker.process.returncode is not None)
    assert worker.process.returncode is None, log_of(worker)
    return Node(cluster, worker, await cluster.frontend.wait_for_node(name))


def with_python(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """`environment` with what tiny backends need."""
    return {"PYTHON": sys.executable, **(environment or {})}


def group_of(leader: int) -> list[int]:
    """The processes, zombies too, of the group that `leader` leads or led."""
    members = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) == leader:
                members.append(pid)
    return members


def children_of(worker: WorkerProcess) -> list[psutil.Process]:
    """Every process below the worker, zombies too, but for its keeper."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(worker.process.pid).children(recursive=True)
        return [child for child in children if not _is_keeper(child)]
    return []


def _is_keeper(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any("keeper_main" in part for part in process.cmdline())
    return False
