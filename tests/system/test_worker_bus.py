"""A real worker process on real NATS servers: restarted under load, and with logins that end."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
import pytest
import trustme

from localai_worker.adapters.nats.bus import NatsMessageBus
from localai_worker.adapters.nats.tls import TlsFiles
from localai_worker.app.simulator.local_cluster import LocalCluster
from localai_worker.app.simulator.nats_users import NatsUsers
from localai_worker.domain.errors import BusUnavailable, NoResponders, RequestTimedOut
from localai_worker.domain.messages.model import ModelsRunningReply
from tests.servers import NatsServer
from tests.system.nodes import Node, log_of, start_node, until
from tests.system.survivors import kill, next_life

PATIENCE_S = 30.0
PAUSE_S = 0.005  # between two requests of the load: some two hundred a second


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path)
    yield server
    server.stop()


@dataclass
class Load:
    """Asks a worker all the time; `outcomes` counts what came of it, by the era in which it was asked.

    An era is a time in which everything is up; 0 is any time in which something is down or just coming.
    A request that was on its way when an era ended belongs to none.
    """

    bus: NatsMessageBus
    subject: str
    era: int = 0
    outcomes: Counter[tuple[int, str]] = field(default_factory=Counter)

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                tasks.start_soon(self._ask)
                await anyio.sleep(PAUSE_S)

    def lost(self) -> dict[tuple[int, str], int]:
        """Requests of an era that were not answered."""
        return {what: count for what, count in self.outcomes.items() if what[0] and what[1] != "answered"}

    def answered(self, era: int) -> int:
        return self.outcomes[era, "answered"]

    async def _ask(self) -> None:
        era = self.era
        outcome = "answered"
        try:
            reply = await self.bus.request(self.subject, b"{}", timeout_s=PATIENCE_S)
            assert ModelsRunningReply.from_wire(reply).models == ()
        except (NoResponders, RequestTimedOut, BusUnavailable) as error:
            outcome = type(error).__name__
        self.outcomes[era if era == self.era else 0, outcome] += 1


@asynccontextmanager
async def load_on(bus: NatsMessageBus, node: Node) -> AsyncIterator[Load]:
    load = Load(bus, node.subjects.models_running)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(load.run)
        yield load
        tasks.cancel_scope.cancel()


async def make_it_register_again(node: Node, moves: int, load: Load) -> None:
    """Answer its heartbeats with 404 until it has moved to a new login, for the `moves`th time."""
    for _ in range(6):  # one beat that times out on a busy machine begins the count of three anew
        node.cluster.registry.answer_next(404, times=3)
        with anyio.move_on_after(5):
            await until(lambda: node.log.count("moved to the new login") >= moves or load.lost())
            return
    pytest.fail(f"never moved to a new login:\n{node.log}")


async def ready(node: Node) -> bool:
    async with httpx.AsyncClient(base_url=f"http://{node.worker.http_address}", trust_env=False) as http:
        return (await http.get("/readyz")).status_code == 200


async def test_no_reply_is_lost_for_requests_sent_after_the_bus_is_back(
    cluster: LocalCluster, nats: NatsServer
) -> None:
    """N-B28: a NATS server restarted under load, again and again."""
    nats.start()
    node = await start_node(cluster, "restarted", {"LOCALAI_NATS_URL": nats.url})
    bus = NatsMessageBus(nats.url, retry_s=0.2)
    await bus.open()
    async with load_on(bus, node) as load:
        for era in range(1, 4):
            load.era = era
            await until(lambda: load.answered(load.era) >= 100 or load.lost())
            load.era = 0
            nats.stop()
            await until(lambda: not bus.connected)
            nats.start()
            await until(lambda at=era: node.log.count(": connected") > at and bus.connected)  # type: ignore[misc]
            assert await ready(node)
        load.era = 4
        await until(lambda: load.answered(4) >= 100 or load.lost())
    assert load.lost() == {}
    await bus.close()
    assert await node.worker.stop() == 0


async def test_a_minted_login_comes_with_the_approval_and_is_renewed_under_load(
    cluster: LocalCluster, nats: NatsServer
) -> None:
    """N-B2, N-B4, S-W06: operator mode, and the permissions that a frontend gives.

    No switch is set, the server alone wants a login. Each registration brings a fresh one, and the worker
    registers again when its heartbeats are answered with 404. One that is killed kept its login on disk, and
    the next goes on with it.
    """
    users = NatsUsers()
    nats.config = users.server_config
    nats.start()
    cluster.registry.credentials = users.mint_worker
    cluster.registry.auto_approve = False
    environment = {"LOCALAI_NATS_URL": nats.url, "LOCALAI_HEARTBEAT_INTERVAL": "300ms"}
    try:
        worker = await cluster.start_worker("minted", environment)
        await until(lambda: "NATS credentials come only with an admin's approval" in log_of(worker))
        row = cluster.registry.named("minted")
        assert row is not None
        cluster.registry.approve(row.id)
        await until(lambda: "worker ready" in log_of(worker))
        node = Node(cluster, worker, row.id)
        bus = NatsMessageBus(nats.url)
        await bus.login(users.mint("frontend"))
        await bus.open()
        async with load_on(bus, node) as load:
            load.era = 1
            for moves in range(1, 4):
                await make_it_register_again(node, moves, load)
        assert load.lost() == {}, node.log
        assert load.answered(1) > 100
        assert "denied" not in node.log
        assert "disconnected" not in node.log
        await bus.close()
        registrations = [call.endpoint for call in cluster.registry.calls].count("register")
        await kill(node)
        node = await next_life(node)
        assert node.said("resumed: node=")
        assert [call.endpoint for call in cluster.registry.calls].count("register") == registrations
        assert await node.worker.stop() == 0
        assert row.status == "draining"
    finally:
        cluster.registry.credentials = None
        cluster.registry.auto_approve = True


async def test_a_worker_shows_its_certificate(
    cluster: LocalCluster, nats: NatsServer, tmp_path: Path
) -> None:
    """S-W07: TLS from the first byte behind the greeting, both sides verified."""
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    for name, certificate in (
        ("server", authority.issue_cert("127.0.0.1")),
        ("client", authority.issue_cert("worker@example.com")),
    ):
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    nats.config = (
        f'tls {{ cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.key", '
        f'ca_file: "{ca}", verify: true }}'
    )
    nats.start()
    environment = {
        "LOCALAI_NATS_URL": nats.url,
        "LOCALAI_NATS_TLS_CA": str(ca),
        "LOCALAI_NATS_TLS_CERT": str(tmp_path / "client.pem"),
        "LOCALAI_NATS_TLS_KEY": str(tmp_path / "client.key"),
    }
    node = await start_node(cluster, "certified", environment)
    bus = NatsMessageBus(nats.url, tls=TlsFiles(ca, tmp_path / "client.pem", tmp_path / "client.key"))
    await bus.open()
    reply = await bus.request(node.subjects.models_running, b"{}", timeout_s=PATIENCE_S)
    assert ModelsRunningReply.from_wire(reply).models == ()
    await bus.close()
    assert await node.worker.stop() == 0
