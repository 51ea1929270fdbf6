"""A worker process from spawn until it answers commands; its memory and processor time when idle.

The peer of the start is a bare interpreter that imports nats-py and connects: what no Python worker
can go below.
"""

import compileall
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
import psutil

import localai_worker
from benchmarks.harness import Report, percentile, run
from localai_worker.app.simulator.local_cluster import LocalCluster, WorkerProcess, local_cluster
from localai_worker.domain.errors import WorkerError
from localai_worker.domain.messages.subjects import NodeSubjects

_GOAL_START_S = 0.6
_GOAL_MIB = 70.0
_GOAL_CPU = 0.5
_BARE = """
import asyncio, sys
import nats
async def main():
    client = await nats.connect(sys.argv[1])
    async def answer(message):
        await message.respond(b"ok")
    await client.subscribe("bare.ready", cb=answer)
    await client.flush()
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def measure(report: Report, quick: bool) -> None:
    starts, idle_s = (3, 5.0) if quick else (7, 30.0)
    # As installed: with byte code, which some environments keep Python from writing by itself.
    compileall.compile_dir(Path(localai_worker.__file__).parent, quiet=1)
    ours: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory(prefix="localai-worker-bench-") as name:
        async with local_cluster(Path(name).resolve()) as cluster:
            await _start_worker(cluster, "warm-up")
            for number in range(starts):
                took_s, worker = await _start_worker(cluster, f"node-{number}")
                ours.append(took_s)
                if number < starts - 1:
                    await worker.stop()
                bare.append(await _start_bare(cluster))
            await anyio.sleep(1)
            process = psutil.Process(worker.process.pid)
            before = process.cpu_times()
            await anyio.sleep(idle_s)
            after = process.cpu_times()
            rss_mib = process.memory_info().rss / 2**20
            cpu = (after.user + after.system - before.user - before.system) / idle_s * 100
    report.figure("start_p50_s", percentile(ours, 0.5))
    report.figure("start_fastest_s", min(ours))
    report.figure("bare_nats_client_p50_s", percentile(bare, 0.5))
    report.figure("idle_rss_mib", rss_mib)
    report.figure("idle_cpu_percent", cpu)
    report.at_most("spawn to subscribed, p50 (s)", percentile(ours, 0.5), _GOAL_START_S)
    report.at_most("idle memory (MiB)", rss_mib, _GOAL_MIB)
    report.at_most("idle processor time (%)", cpu, _GOAL_CPU)


async def _start_worker(cluster: LocalCluster, name: str) -> tuple[float, WorkerProcess]:
    """Seconds from spawn to the first answered command."""
    began_s = anyio.current_time()
    worker = await cluster.start_worker(name, {"LOCALAI_HEARTBEAT_INTERVAL": "10s"})  # the default
    with anyio.fail_after(30):
        while (row := cluster.registry.named(name)) is None:
            await anyio.sleep(0.002)
        await _until_answered(cluster, NodeSubjects(row.id).list)
    return anyio.current_time() - began_s, worker


async def _start_bare(cluster: LocalCluster) -> float:
    began_s = anyio.current_time()
    command = [sys.executable, "-c", _BARE, f"nats://127.0.0.1:{cluster.nats_port}"]
    bare = await anyio.open_process(command, stdin=subprocess.DEVNULL, stdout=None, stderr=None)
    with anyio.fail_after(30):
        await _until_answered(cluster, "bare.ready")
    took_s = anyio.current_time() - began_s
    bare.kill()
    await bare.aclose()
    return took_s


async def _until_answered(cluster: LocalCluster, subject: str) -> None:
    while True:
        try:
            await cluster.frontend.bus.request(subject, b"{}", timeout_s=5)
        except WorkerError:
            await anyio.sleep(0.002)
        else:
            return


if __name__ == "__main__":
    run("footprint", measure)
