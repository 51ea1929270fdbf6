"""How a real worker process comes up, and what it says when it cannot."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from localai_worker.adapters.grpc.backend_client import GrpcBackendClient
from localai_worker.adapters.nats.bus import NatsMessageBus
from localai_worker.app.simulator.frontend import SimulatedFrontend
from localai_worker.app.simulator.local_cluster import LocalCluster
from tests.servers import NatsServer, free_port
from tests.system import tiny_backends
from tests.system.nodes import exit_code, log_of, start_node, until, with_python


@pytest.fixture
def other_nats(cluster: LocalCluster, tmp_path: Path) -> Iterator[NatsServer]:
    """A NATS server that is not running yet."""
    server = NatsServer(tmp_path)
    yield server
    server.stop()


@asynccontextmanager
async def frontend_on(server: NatsServer, cluster: LocalCluster) -> AsyncIterator[SimulatedFrontend]:
    """The cluster's frontend, talking over `server`."""
    bus = NatsMessageBus(server.url)
    await bus.open()
    yield SimulatedFrontend(
        bus=bus, registry=cluster.registry, inference=GrpcBackendClient(cluster.token), token=cluster.token
    )
    await bus.close()


def two_ports(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Listeners on two neighbouring ports."""
    for _ in range(100):
        first = stack.enter_context(socket.socket())
        first.bind(("0.0.0.0", 0))
        second = stack.enter_context(socket.socket())
        try:
            second.bind(("0.0.0.0", first.getsockname()[1] + 1))
        except (OSError, OverflowError):
            continue
        first.listen()
        second.listen()
        return first, second
    raise AssertionError("no two neighbouring ports are free")


async def test_a_worker_waits_for_its_message_bus(cluster: LocalCluster, other_nats: NatsServer) -> None:
    """Nothing is lost by starting first: it says what it waits for and registers once it could work."""
    url = other_nats.url.replace("://", "://worker:sesame@")
    worker = await cluster.start_worker("early", with_python({"LOCALAI_NATS_URL": url}))
    await until(lambda: "is unavailable" in log_of(worker))
    (line,) = [line for line in log_of(worker).splitlines() if "is unavailable" in line][:1]
    assert f"message bus nats://***@127.0.0.1:{other_nats.port} is unavailable: " in line
    assert line.endswith("; retrying every 2 s")
    assert "sesame" not in log_of(worker)
    assert cluster.registry.named("early") is None
    other_nats.start()
    node_id = await cluster.frontend.wait_for_node("early")
    async with frontend_on(other_nats, cluster) as frontend:
        await until(lambda: "worker ready" in log_of(worker))
        tiny_backends.healthy(worker.directory / "backends", "late")
        await frontend.install(node_id, "late", model_id="m")
    assert await worker.stop() == 0


async def test_a_worker_that_waits_for_its_message_bus_can_be_stopped(
    cluster: LocalCluster, other_nats: NatsServer
) -> None:
    worker = await cluster.start_worker("impatient", {"LOCALAI_NATS_URL": other_nats.url})
    await until(lambda: "is unavailable" in log_of(worker))
    assert await worker.stop() == 0
    assert "Traceback" not in log_of(worker)
    assert cluster.registry.named("impatient") is None


async def test_a_frontend_out_of_reach_is_named_with_attempt_and_wait(cluster: LocalCluster) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    worker = await cluster.start_worker("lonely", {"LOCALAI_REGISTER_TO": url})
    await until(lambda: "registration failed" in log_of(worker))
    (line,) = [line for line in log_of(worker).splitlines() if "registration failed" in line][:1]
    assert f"registration failed: attempt=1/100 retry_in_s=2 error=frontend {url}" in line
    assert "is unavailable" in line
    assert await worker.stop() == 0
    assert "Traceback" not in log_of(worker)


async def test_a_rejected_token_ends_the_worker_and_is_named(cluster: LocalCluster) -> None:
    worker = await cluster.start_worker("stranger", {"LOCALAI_REGISTRATION_TOKEN": "wrong"})
    assert await exit_code(worker) == 1
    said = log_of(worker)
    assert "failed to register with the frontend after 1 attempt(s): " in said
    assert f"http://127.0.0.1:{cluster.frontend_port}" in said
    assert "answered 401: invalid registration token; check LOCALAI_REGISTRATION_TOKEN" in said
    assert "Traceback" not in said


async def test_a_taken_http_port_ends_the_worker_before_it_registers(cluster: LocalCluster) -> None:
    """H-20: a node that could not serve must not be picked."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "{}:{}".format(*taken.getsockname())
        worker = await cluster.start_worker("homeless", {"LOCALAI_HTTP_ADDR": address})
        assert await exit_code(worker) == 1
    assert (
        f"cannot listen for HTTP on {address}: Address already in use; "
        "stop what holds the port or set LOCALAI_HTTP_ADDR to a free one"
    ) in log_of(worker)
    assert cluster.registry.named("homeless") is None


async def test_an_unusable_setting_ends_the_worker_with_code_2(cluster: LocalCluster) -> None:
    worker = await cluster.start_worker("mistyped", {"LOCALAI_LOG_FORMAT": "xml"})
    assert await exit_code(worker) == 2
    assert "LOCALAI_LOG_FORMAT" in log_of(worker)
    assert "xml" in log_of(worker)


async def test_ports_of_other_programs_are_skipped_and_a_range_without_any_is_named(
    cluster: LocalCluster,
) -> None:
    """N-B16: a port another program listens on is never handed out."""
    with ExitStack() as stack:
        base, above = two_ports(stack)
        first, last = base.getsockname()[1], above.getsockname()[1]
        environment = {"LOCALAI_ADDR": f"127.0.0.1:{first}", "LOCALAI_GRPC_MAX_PORT": str(last)}
        node = await start_node(cluster, "cramped", environment)
        tiny_backends.healthy(node.backends, "tiny")
        assert await node.refused_install("tiny") == (
            "allocating gRPC port for backend tiny#0: no free gRPC port in range: "
            f"{first}-{last} is fully consumed by 0 running backend(s) and 0 port(s) still in quarantine "
            "and 2 taken by other programs; raise LOCALAI_GRPC_MAX_PORT to widen the range"
        )
        base.close()
        assert await node.install("tiny") == f"127.0.0.1:{first}"
