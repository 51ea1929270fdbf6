"""How fast the worker answers commands: beside a bare echo, while slow installs run, and with many backends.

Real NATS, a worker process, tiny real backends; the echo is nats-py alone in a process of its own. Requests
of all kinds go out in turns, one at a time, so that whatever else the machine does meets all of them alike.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import nats
import psutil
from nats.aio.client import Client

from benchmarks.harness import Report, percentile, run
from localai_worker.app.simulator.local_cluster import LocalCluster, local_cluster
from localai_worker.domain.messages.subjects import NodeSubjects
from localai_worker.domain.node import NodeId
from tests.servers import free_port
from tests.tiny_server import write_tiny_backend

_INSTALLED = 20
_SLOW_INSTALLS = 8
_SLOW_BYTES_S = 1024 * 1024
_ECHO = "bench.echo"
_PATIENCE_S = 180.0
_NOISE_S = 3e-6  # a cost per backend below this is none


@dataclass(frozen=True)
class Stage:
    """A worker that takes commands, and a client of its bus."""

    cluster: LocalCluster
    worker_pid: int
    node: NodeId
    client: Client

    @property
    def backends(self) -> Path:
        return self.cluster.home("node") / "backends"

    @property
    def subjects(self) -> NodeSubjects:
        return NodeSubjects(self.node)

    async def ask(self, subject: str, payload: bytes = b"{}") -> bytes:
        return (await self.client.request(subject, payload, timeout=_PATIENCE_S)).data


async def measure(report: Report, quick: bool) -> None:
    rounds = 300 if quick else 3000
    with tempfile.TemporaryDirectory(prefix="localai-worker-bench-") as name:
        async with _stage(Path(name).resolve()) as stage:
            await _install(stage, 0)
            with _peer("benchmarks.echo", f"nats://127.0.0.1:{stage.cluster.nats_port}", _ECHO):
                quiet = await _take_turns(stage, rounds)
                _report_quiet(report, quiet)
                async with _slow_installs(stage, layer_bytes=(12 if quick else 40) * _SLOW_BYTES_S):
                    busy = await _take_turns(stage, rounds)
            for name in ("list", "install"):
                p99 = percentile(busy[name], 0.99)
                report.figure(f"{name}_during_slow_installs_p99_ms", p99 * 1000)
                report.at_most(
                    f"{name} during 8 slow installs / quiet, p99", p99 / percentile(quiet[name], 0.99), 1.5
                )
            report.figure("echo_during_slow_installs_p99_ms", percentile(busy["echo"], 0.99) * 1000)
            few, many = (20, 80) if quick else (50, 200)
            await _with_backends(report, stage, few, many)


def _report_quiet(report: Report, quiet: Mapping[str, Sequence[float]]) -> None:
    echo = quiet["echo"]
    for name, values in quiet.items():
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            report.figure(f"{name}_{label}_ms", percentile(list(values), share) * 1000)
    for name in ("list", "install"):
        for share, label, goal in ((0.5, "p50", 1.5), (0.99, "p99", 3.0)):
            ratio = percentile(list(quiet[name]), share) / percentile(list(echo), share)
            report.at_most(f"{name} / echo, {label}", ratio, goal)


async def _take_turns(stage: Stage, rounds: int) -> dict[str, list[float]]:
    """Latencies in seconds of an echo, a list and an install of what runs, asked for in turns."""
    running = json.dumps({"backend": "tiny-0", "model_id": "model-0"}).encode()
    asks: dict[str, Callable[[], object]] = {
        "echo": partial(stage.ask, _ECHO, running),
        "list": partial(stage.ask, stage.subjects.list),
        "install": partial(stage.ask, stage.subjects.install, running),
    }
    taken: dict[str, list[float]] = {name: [] for name in asks}
    for round_number in range(rounds + rounds // 10):
        for name, ask in asks.items():
            began_s = time.perf_counter()
            await ask()  # type: ignore[misc]
            if round_number >= rounds // 10:  # the first ones warm up
                taken[name].append(time.perf_counter() - began_s)
    return taken


async def _with_backends(report: Report, stage: Stage, few: int, many: int) -> None:
    """Cost of models.running and of stop-all, with `few` and with `many` backends running."""
    await _time_of_stop_all(stage)
    inventory_s, stop_s = {}, {}
    for count in (few, many):
        bare_s = await _time_of_inventory(stage)
        await _start(stage, count)
        inventory_s[count] = max((await _time_of_inventory(stage) - bare_s) / count, _NOISE_S)
        stop_s[count] = await _time_of_stop_all(stage) / count
        report.figure(f"models_running_{count}_us_per_backend", inventory_s[count] * 1e6)
        report.figure(f"stop_all_{count}_ms_per_backend", stop_s[count] * 1e3)
        await anyio.sleep(16)  # the ports rest
    report.at_most(f"models.running per backend, {many} / {few}", inventory_s[many] / inventory_s[few], 1.5)
    report.at_most(f"stop-all per backend, {many} / {few}", stop_s[many] / stop_s[few], 1.5)


async def _start(stage: Stage, count: int) -> None:
    """Have `count` replicas run, eight starts at a time."""
    limit = anyio.CapacityLimiter(8)

    async def start(number: int) -> None:
        async with limit:
            await _install(stage, number)

    async with anyio.create_task_group() as starts:
        for number in range(count):
            starts.start_soon(start, number)


async def _install(stage: Stage, number: int) -> None:
    request = {"backend": "tiny-0", "model_id": f"model-{number}"}
    reply = json.loads(await stage.ask(stage.subjects.install, json.dumps(request).encode()))
    assert reply["success"], reply


async def _time_of_inventory(stage: Stage) -> float:
    """Median of asking what runs."""
    taken = []
    for _ in range(400):
        began_s = time.perf_counter()
        await stage.ask(stage.subjects.models_running)
        taken.append(time.perf_counter() - began_s)
    return percentile(taken, 0.5)


async def _time_of_stop_all(stage: Stage) -> float:
    """From the command to the end of the last process."""
    children = psutil.Process(stage.worker_pid).children()
    backends = [child for child in children if "server.py" in child.cmdline()]
    began_s = time.perf_counter()
    await stage.client.publish(stage.subjects.stop, b"null")
    with anyio.fail_after(_PATIENCE_S):
        while any(map(_lives, backends)):
            await anyio.sleep(0.005)
    return time.perf_counter() - began_s


@asynccontextmanager
async def _slow_installs(stage: Stage, *, layer_bytes: int) -> AsyncIterator[None]:
    """Eight installs of images that come at 1 MB/s each, at work during the block and over after it."""
    port = free_port()
    with _peer("benchmarks.slow_registry", str(port), str(_SLOW_BYTES_S), str(layer_bytes)):
        async with anyio.create_task_group() as installs:
            for number in range(_SLOW_INSTALLS):
                request = {
                    "backend": f"slow-{number}",
                    "uri": f"oci://127.0.0.1:{port}/slow-{number}:1",
                    "name": f"slow-{number}",
                }
                installs.start_soon(stage.ask, stage.subjects.install, json.dumps(request).encode())
            await anyio.sleep(2)
            yield
            staged = {path.name for path in stage.backends.glob("slow-*")}
            assert not staged, "the installs were over before the measurement; make their layer larger"


@asynccontextmanager
async def _stage(directory: Path) -> AsyncIterator[Stage]:
    async with local_cluster(directory) as cluster:
        for number in range(_INSTALLED):
            backend = cluster.home("node") / "backends" / f"tiny-{number}"
            write_tiny_backend(backend)
            (backend / "metadata.json").write_text(json.dumps(_metadata(backend.name)))
        worker = await cluster.start_worker("node", {"LOCALAI_GRPC_MAX_PORT": "32000"})
        node = await cluster.frontend.wait_for_node("node")
        await cluster.frontend.wait_until_it_answers(node)
        client = await nats.connect(f"nats://127.0.0.1:{cluster.nats_port}")
        try:
            yield Stage(cluster, worker.process.pid, node, client)
        finally:
            await client.close()


def _metadata(name: str) -> dict[str, str]:
    return {
        "name": name,
        "gallery_url": "https://gallery.example.com/index.yaml",
        "installed_at": "2026-04-20T10:00:00Z",
        "version": "1.2.3",
        "uri": f"registry.example.com/backends:v3-{name}",
        "digest": f"sha256:{'ab' * 32}",
    }


@contextmanager
def _peer(module: str, *arguments: str) -> Iterator[None]:
    """A module of ours as a process, from the moment it says `up`."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "up\n"
            yield
        finally:
            process.send_signal(signal.SIGKILL)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between two looks
        return False


if __name__ == "__main__":
    run("commands", measure)
