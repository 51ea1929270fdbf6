"""A worker that was killed and starts again: until every one of its backends is answered for once more.

The peers, in the same run: the same worker starting with nothing left behind, and what LocalAI's own has
to do after a kill, namely to start every backend anew (without the models that the real ones would load).
"""

import signal
import tempfile
from pathlib import Path

import anyio

from benchmarks.backends import write_backend
from benchmarks.harness import Report, percentile, run
from localai_worker.app.simulator.local_cluster import LocalCluster, WorkerProcess, local_cluster
from localai_worker.domain.errors import WorkerError
from localai_worker.domain.messages.subjects import NodeSubjects
from localai_worker.domain.node import NodeId

_BACKENDS = 5
_GOAL_OF_COLD = 0.5  # and less for real backends, which load models for minutes
_GOAL_OF_EMPTY = 1.5  # gRPC is loaded and five installs are answered in that time


async def measure(report: Report, quick: bool) -> None:
    rounds = 3 if quick else 10
    adopted: list[float] = []
    cold: list[float] = []
    empty: list[float] = []
    with tempfile.TemporaryDirectory(prefix="localai-worker-bench-") as name:
        async with local_cluster(Path(name).resolve()) as cluster:
            for number in range(_BACKENDS):
                write_backend(cluster.home("node") / "backends" / f"b{number}")
            worker = await cluster.start_worker("node")
            node = await cluster.frontend.wait_for_node("node")
            await cluster.frontend.wait_until_it_answers(node)
            await _install_all(cluster, node)
            for _ in range(rounds):
                worker, took_s = await _again(cluster, node, worker, signal.SIGKILL, installs=True)
                adopted.append(took_s)
                worker, took_s = await _again(cluster, node, worker, signal.SIGTERM, installs=True)
                cold.append(took_s)
                await cluster.frontend.stop(node)
                worker, took_s = await _again(cluster, node, worker, signal.SIGTERM, installs=False)
                empty.append(took_s)
                await _install_all(cluster, node)
    report.figure("backends", _BACKENDS)
    report.figure("killed_adopted_p50_s", percentile(adopted, 0.5))
    report.figure("all_started_anew_p50_s", percentile(cold, 0.5))
    report.figure("start_with_nothing_left_p50_s", percentile(empty, 0.5))
    of_cold = percentile(adopted, 0.5) / percentile(cold, 0.5)
    of_empty = percentile(adopted, 0.5) / percentile(empty, 0.5)
    report.at_most(f"{_BACKENDS} backends adopted / started anew, p50", of_cold, _GOAL_OF_COLD)
    report.at_most(f"start with {_BACKENDS} to adopt / with none, p50", of_empty, _GOAL_OF_EMPTY)


async def _again(
    cluster: LocalCluster, node: NodeId, worker: WorkerProcess, number: signal.Signals, *, installs: bool
) -> tuple[WorkerProcess, float]:
    """End the worker by a signal and start it; seconds from its spawn to the last answer."""
    worker.stopping = True
    worker.process.send_signal(number)
    await worker.process.wait()
    began_s = anyio.current_time()
    worker = await cluster.restart_worker(worker)
    with anyio.fail_after(60):
        await _until_answered(cluster, NodeSubjects(node).list)
        if installs:
            await _install_all(cluster, node)
    return worker, anyio.current_time() - began_s


async def _install_all(cluster: LocalCluster, node: NodeId) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(_BACKENDS):
            tasks.start_soon(cluster.frontend.install, node, f"b{number}")


async def _until_answered(cluster: LocalCluster, subject: str) -> None:
    while True:
        try:
            await cluster.frontend.bus.request(subject, b"{}", timeout_s=5)
        except WorkerError:
            await anyio.sleep(0.002)
        else:
            return


if __name__ == "__main__":
    run("recovery", measure)
