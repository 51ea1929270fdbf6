"""A message bus that goes and comes back under a real worker process."""

from pathlib import Path

import httpx

from localai_worker.adapters.grpc.backend_client import GrpcBackendClient
from localai_worker.adapters.nats.bus import NatsMessageBus
from localai_worker.app.simulator.frontend import SimulatedFrontend
from localai_worker.app.simulator.local_cluster import LocalCluster
from tests.servers import NatsServer
from tests.system import tiny_backends
from tests.system.nodes import start_node, until


async def test_a_worker_outlives_the_outage_of_its_message_bus(cluster: LocalCluster, tmp_path: Path) -> None:
    """Not ready meanwhile, still beating, its backends running; afterwards it works as before."""
    nats = NatsServer(tmp_path)
    nats.start()
    try:
        environment = {"LOCALAI_NATS_URL": nats.url, "LOCALAI_HEARTBEAT_INTERVAL": "1s"}
        node = await start_node(cluster, "survivor", environment)
        bus = NatsMessageBus(nats.url)
        await bus.open()
        frontend = SimulatedFrontend(
            bus=bus,
            registry=cluster.registry,
            inference=GrpcBackendClient(cluster.token),
            token=cluster.token,
        )
        tiny_backends.healthy(node.backends, "tiny")
        address = await frontend.install(node.id, "tiny", model_id="m")

        async with httpx.AsyncClient(base_url=f"http://{node.worker.http_address}", trust_env=False) as http:
            assert (await http.get("/readyz")).status_code == 200
            nats.stop()
            await until(lambda: "disconnected" in node.log)
            refused = await http.get("/readyz")
            assert refused.status_code == 503
            assert refused.text.strip() == "not ready: NATS connection is down: worker cannot receive work"
            assert (await http.get("/healthz")).status_code == 200
            beats = node.endpoints.count("heartbeat")
            await until(lambda: node.endpoints.count("heartbeat") >= beats + 2)
            await frontend.inference.health(address, timeout_s=5)

            nats.start()
            await until(lambda: node.log.count(": connected") == 2)
            assert (await http.get("/readyz")).status_code == 200
        assert await frontend.install(node.id, "tiny", model_id="m") == address
        await frontend.node_stop(node.id)
        await bus.close()
        await until(lambda: node.log.rstrip().endswith("stopped"))
        assert await node.worker.stop() == 0
    finally:
        nats.stop()
