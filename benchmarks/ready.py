"""From "the backend listens" to "the install reply is there", beside a loop that sleeps 200 ms between polls.

A real worker process, real NATS, a real gRPC backend that stamps the moment it listens. The peer starts the
same backend and polls Health as LocalAI's worker does.
"""

import tempfile
from pathlib import Path

import anyio

from benchmarks.backends import listened_s, now_s, write_backend
from benchmarks.harness import Report, percentile, run
from localai_worker.adapters.grpc.backend_client import GrpcBackendClient
from localai_worker.adapters.processes.local import LocalProcesses
from localai_worker.app.simulator.local_cluster import LocalCluster, local_cluster
from localai_worker.domain.errors import BackendUnavailable
from localai_worker.domain.node import NodeId
from localai_worker.domain.ports.processes import ProcessSpec, StopSignal

_GOAL_MS = 25.0
_PEER_POLL_S = 0.2


async def measure(report: Report, quick: bool) -> None:
    starts = 8 if quick else 30
    ours: list[float] = []
    peer: list[float] = []
    with tempfile.TemporaryDirectory(prefix="localai-worker-bench-") as name:
        directory = Path(name).resolve()
        async with local_cluster(directory) as cluster:
            backend = cluster.home("node") / "backends" / "stamp"
            program = write_backend(backend)
            worker = await cluster.start_worker("node")
            node = await cluster.frontend.wait_for_node("node")
            await cluster.frontend.wait_until_it_answers(node)
            await _start_with_worker(cluster, node, backend, "warm-up")
            for number in range(starts):
                ours.append(await _start_with_worker(cluster, node, backend, f"model-{number}"))
                peer.append(await _start_with_sleeps(program, worker.ports.stop + number, cluster.token))
    report.figure("ours_p50_ms", percentile(ours, 0.5) * 1000)
    report.figure("ours_p95_ms", percentile(ours, 0.95) * 1000)
    report.figure("sleep_200_ms_p50_ms", percentile(peer, 0.5) * 1000)
    report.figure("sleep_200_ms_p95_ms", percentile(peer, 0.95) * 1000)
    report.figure("starts", starts)
    report.at_most("listens to reply, p50 (ms)", percentile(ours, 0.5) * 1000, _GOAL_MS)
    report.at_most("ours / 200 ms sleeps, p50", percentile(ours, 0.5) / percentile(peer, 0.5), 1.0)


async def _start_with_worker(cluster: LocalCluster, node: NodeId, directory: Path, model: str) -> float:
    address = await cluster.frontend.install(node, "stamp", model_id=model)
    replied_s = now_s()
    port = int(address.rpartition(":")[2])
    took_s = replied_s - listened_s(directory, port)
    await cluster.frontend.stop(node, model)
    await _until_silent(address, cluster.token)
    return took_s


async def _start_with_sleeps(program: Path, port: int, token: str) -> float:
    logs = program.parent / "peer-logs"
    spec = ProcessSpec(program, ("--addr", f"0.0.0.0:{port}"), {}, logs / "out", logs / "err")
    process = await LocalProcesses().spawn(spec)
    client = GrpcBackendClient(token)
    with anyio.fail_after(30):
        while True:
            await anyio.sleep(_PEER_POLL_S)
            try:
                await client.health(f"127.0.0.1:{port}", timeout_s=2)
            except BackendUnavailable:
                continue
            break
    took_s = now_s() - listened_s(program.parent, port)
    process.signal_group(StopSignal.TERM)
    await process.wait()
    return took_s


async def _until_silent(address: str, token: str) -> None:
    client = GrpcBackendClient(token)
    with anyio.fail_after(30):
        while True:
            try:
                await client.health(address, timeout_s=1)
            except BackendUnavailable:
                return
            await anyio.sleep(0.02)


if __name__ == "__main__":
    run("ready", measure)
