"""Backends that outlive their worker, as anybody on the machine can see them."""

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import psutil
from anyio import to_thread

from localai_worker.app.simulator.local_cluster import WorkerProcess
from tests.system.nodes import PATIENCE_S, Node, group_of, log_of, until

MARK = "LOCALAI_WORKER_LAUNCH"


@dataclass(frozen=True)
class Survivor:
    """The leader of a living process group of this node."""

    pid: int
    backend: str
    port: int


def state_of(worker: WorkerProcess) -> Path:
    """The state directory of a worker of a local cluster."""
    return worker.directory / "localai-worker"


def marked(worker: WorkerProcess) -> list[psutil.Process]:
    """Every living process that this worker, or one before it, has started for a backend."""
    owner = (state_of(worker) / "owner").read_text()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if process.environ().get(MARK, "").startswith(f"{owner}.") and process.status() != "zombie":
                found.append(process)
    return found


def survivors(worker: WorkerProcess) -> set[Survivor]:
    """The leaders among `marked`."""
    found = set()
    for process in marked(worker):
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == process.pid:
                command = process.cmdline()
                port = int(command[command.index("--addr") + 1].rpartition(":")[2])
                found.add(Survivor(process.pid, Path(process.cwd()).name, port))
    return found


def living(leader: int) -> list[int]:
    """The members of a group that run. The zombie of an adopted leader is for the system's init to reap."""
    found = []
    for pid in group_of(leader):
        with contextlib.suppress(psutil.Error):
            found += [pid] if psutil.Process(pid).status() != "zombie" else []
    return found


def journaled(worker: WorkerProcess) -> set[int]:
    """The process ids in the journal."""
    return {int(path.stem) for path in (state_of(worker) / "processes").glob("*.json")}


def keepers(worker: WorkerProcess) -> list[int]:
    """The living keepers of the worker's state directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if command[-1:] == [str(state_of(worker))] and process.status() != "zombie":
                found.append(process.pid)
    return found


async def until_slowly(condition: Callable[[], object]) -> None:
    """As `until`, for a condition that goes through every process of the machine."""
    with anyio.fail_after(PATIENCE_S):
        while not await to_thread.run_sync(condition):
            await anyio.sleep(0.2)


async def kill(node: Node) -> None:
    """SIGKILL for the worker alone, and the end of it."""
    node.worker.stopping = True
    node.worker.process.send_signal(signal.SIGKILL)
    await node.worker.process.wait()


async def next_life(node: Node, **environment: str) -> Node:
    """The worker again, in its place, once it takes commands."""
    since = len(node.log)
    node.worker.environment = {**node.worker.environment, **environment}
    worker = await node.cluster.restart_worker(node.worker)
    await until(lambda: "worker ready" in log_of(worker)[since:] or worker.process.returncode is not None)
    assert worker.process.returncode is None, log_of(worker)[since:]
    row = node.cluster.registry.named(worker.name)
    assert row is not None
    return Node(node.cluster, worker, row.id)


def end_survivors(worker: WorkerProcess) -> None:
    """Whatever went wrong in a test, nothing of it stays on the machine."""
    with contextlib.suppress(FileNotFoundError):
        for process in marked(worker):
            with contextlib.suppress(psutil.Error):
                process.kill()
    for pid in keepers(worker):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
