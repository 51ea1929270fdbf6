"""What every `MessageBus` promises, held against every way in which a NATS server lets its clients in."""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
import trustme
from anyio.lowlevel import checkpoint

from localai_worker.adapters.memory.bus import InMemoryBroker, InMemoryMessageBus
from localai_worker.adapters.nats.bus import NatsMessageBus
from localai_worker.adapters.nats.tls import TlsFiles
from localai_worker.app.simulator.nats_users import NatsUsers
from localai_worker.domain.bus_credentials import BusCredentials
from localai_worker.domain.errors import BusLoginRefused, SubscriptionDenied
from localai_worker.domain.ports.bus import MessageBus, Subscription
from tests.servers import NatsServer

PATIENCE_S = 20.0
SECRET = "s3cret-p@ss"


@dataclass
class Entrance:
    """A server and how its clients get in: an address that bears a login, files for TLS, or credentials."""

    new_bus: Callable[[], MessageBus]
    users: NatsUsers
    stop: Callable[[], None]
    start: Callable[[], None]
    by_credentials: bool = False
    stranger: Callable[[], MessageBus] | None = None
    opened: list[MessageBus] = field(default_factory=list)

    async def connect(self) -> MessageBus:
        """A connected bus, closed in the end."""
        bus = self.new_bus()
        if self.by_credentials:
            await bus.login(self.users.mint("worker"))
        await self.open(bus)
        return bus

    async def open(self, bus: MessageBus) -> None:
        self.opened.append(bus)
        with anyio.fail_after(PATIENCE_S):
            await bus.open()


@dataclass(frozen=True)
class Certificates:
    """An authority's own file, a server's certificate and a client's, as paths."""

    ca: Path
    server: TlsFiles
    client: TlsFiles


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    ca = directory / "ca.pem"
    authority.cert_pem.write_to_path(ca)

    def issue(name: str, certificate: trustme.LeafCert) -> TlsFiles:
        files = TlsFiles(ca, directory / f"{name}.pem", directory / f"{name}.key")
        assert files.certificate
        assert files.key
        certificate.cert_chain_pems[0].write_to_path(files.certificate)
        certificate.private_key_pem.write_to_path(files.key)
        return files

    server = issue("server", authority.issue_cert("127.0.0.1"))
    return Certificates(ca, server, issue("client", authority.issue_cert("worker@example.com")))


@pytest.fixture(scope="module")
def users() -> NatsUsers:
    return NatsUsers()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, NatsServer]]:
    """One server for each way in, started when it is first needed."""
    running: dict[str, NatsServer] = {}
    yield running
    for server in running.values():
        server.stop()


def memory_entrance(users: NatsUsers) -> Entrance:
    broker = InMemoryBroker(admits=lambda credentials: credentials is not None)

    def set_offline(offline: bool) -> Callable[[], None]:
        return lambda: setattr(broker, "offline", offline)

    return Entrance(
        lambda: InMemoryMessageBus(broker), users, set_offline(True), set_offline(False), by_credentials=True
    )


def server_config(kind: str, users: NatsUsers, certificates: Certificates) -> str:
    tls = f'cert_file: "{certificates.server.certificate}", key_file: "{certificates.server.key}"'
    return {
        "plain": "",
        "token": f'authorization {{ token: "{SECRET}" }}',
        "password": f'authorization {{ user: ada, password: "{SECRET}" }}',
        "jwt": users.server_config,
        "jwt over tls": f"{users.server_config}\ntls {{ {tls} }}",
        "tls": f"tls {{ {tls} }}",
        "mtls": f'tls {{ {tls}, ca_file: "{certificates.ca}", verify: true }}',
    }[kind]


@pytest.fixture(params=["memory", "plain", "token", "password", "jwt", "jwt over tls", "tls", "mtls"])
async def entrance(
    request: pytest.FixtureRequest, servers: dict[str, NatsServer], users: NatsUsers, tmp_path: Path
) -> AsyncIterator[Entrance]:
    kind: str = request.param
    if kind == "memory":
        entrance = memory_entrance(users)
    else:
        certificates: Certificates = request.getfixturevalue("certificates")
        if kind not in servers:
            directory: Path = request.getfixturevalue("tmp_path_factory").mktemp("nats")
            servers[kind] = NatsServer(directory, server_config(kind, users, certificates))
        server = servers[kind]
        server.start()
        userinfo = {"token": "s3cret-p%40ss@", "password": "ada:s3cret-p%40ss@"}.get(kind, "")
        files = {"mtls": certificates.client}.get(kind, TlsFiles(certificates.ca)) if "tls" in kind else None

        def new_bus(userinfo: str = userinfo, files: TlsFiles | None = files) -> NatsMessageBus:
            return NatsMessageBus(server.url.replace("://", f"://{userinfo}"), tls=files, retry_s=0.05)

        entrance = Entrance(
            new_bus,
            users,
            server.stop,
            server.start,
            by_credentials="jwt" in kind,
            stranger=lambda: new_bus(""),
        )
    yield entrance
    entrance.start()
    for bus in entrance.opened:
        await bus.close()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await checkpoint()


async def read(subscription: Subscription, count: int) -> list[bytes]:
    payloads: list[bytes] = []
    with anyio.fail_after(PATIENCE_S):
        while len(payloads) < count:
            payloads.append((await anext(aiter(subscription))).payload)
    return payloads


async def test_who_is_let_in_sends_receives_and_asks(entrance: Entrance) -> None:
    """S-W07: one way in after the other, as LOCALAI_NATS_URL, the TLS files or a JWT open it."""
    asking, answering = await entrance.connect(), await entrance.connect()
    subscription = await answering.subscribe("nodes.n1.backend.list")

    async def answer() -> None:
        message = await anext(aiter(subscription))
        await answering.publish(message.reply_to, b"re: " + message.payload)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        reply = await asking.request("nodes.n1.backend.list", b"{}", timeout_s=PATIENCE_S)
    assert reply == b"re: {}"
    assert not asking.login_refused


async def test_who_was_let_in_is_let_in_again_after_a_restart(entrance: Entrance) -> None:
    sender, receiver = await entrance.connect(), await entrance.connect()
    subscription = await receiver.subscribe("a.*")
    entrance.stop()
    await until(lambda: not sender.connected and not receiver.connected)
    entrance.start()
    await until(lambda: sender.connected and receiver.connected)
    await sender.publish("a.b", b"again")
    assert await read(subscription, 1) == [b"again"]


@pytest.mark.parametrize("entrance", ["memory", "token", "password", "jwt", "jwt over tls"], indirect=True)
async def test_a_server_that_wants_a_login_ends_the_open_of_who_has_none(
    entrance: Entrance, caplog: pytest.LogCaptureFixture
) -> None:
    """S-W07: nobody waits for ever for a door that will not open; with a login it can be opened again."""
    bus = (entrance.stranger or entrance.new_bus)()
    with pytest.raises(BusLoginRefused, match="wants"):
        await entrance.open(bus)
    assert not bus.connected
    assert bus.login_refused
    if entrance.by_credentials:
        await bus.login(entrance.users.mint("worker"))
        await entrance.open(bus)
        assert (bus.connected, bus.login_refused) == (True, False)
    assert SECRET not in caplog.text


async def test_no_message_is_lost_or_doubled_by_a_new_login(entrance: Entrance) -> None:
    """N-B4: fresh credentials are used while the old ones are still good, and nobody notices."""
    sender, receiver = await entrance.connect(), await entrance.connect()
    subscription = await receiver.subscribe("count")
    sent: list[bytes] = []
    moved = anyio.Event()

    async def send() -> None:
        while not moved.is_set():
            for _ in range(5):
                sent.append(str(len(sent)).encode())
                await sender.publish("count", sent[-1])
            await anyio.sleep(0.001)  # a busy machine takes long to move, and must not drown meanwhile

    heard: list[bytes] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        for number in range(3):
            heard += await read(subscription, 20)
            await receiver.login(entrance.users.mint(f"worker {number}"))
            heard += await read(subscription, 20)
            await sender.login(entrance.users.mint(f"frontend {number}"))
        moved.set()
    heard += await read(subscription, len(sent) - len(heard))
    # Two connections of one sender have no order between them.
    assert sorted(heard, key=int) == sent
    assert receiver.connected


async def test_a_reader_that_leaves_while_the_login_changes_is_gone(entrance: Entrance) -> None:
    sender, receiver = await entrance.connect(), await entrance.connect()
    gone, stays = await receiver.subscribe("a"), await receiver.subscribe("a")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receiver.login, entrance.users.mint("worker"))
        await checkpoint()
        await gone.unsubscribe()
        late = await receiver.subscribe("late")
    await sender.publish("a", b"news")
    await sender.publish("late", b"more")
    assert await read(stays, 1) == [b"news"]
    assert await read(late, 1) == [b"more"]
    assert [message async for message in gone] == []


# What only users in operator mode can do.


@pytest.fixture
async def jwt_server(
    servers: dict[str, NatsServer], users: NatsUsers, tmp_path_factory: pytest.TempPathFactory
) -> NatsServer:
    if "jwt" not in servers:
        servers["jwt"] = NatsServer(tmp_path_factory.mktemp("nats"), users.server_config)
    servers["jwt"].start()
    return servers["jwt"]


@contextlib.asynccontextmanager
async def connected(server: NatsServer, credentials: BusCredentials) -> AsyncIterator[NatsMessageBus]:
    bus = NatsMessageBus(server.url, retry_s=0.05)
    await bus.login(credentials)
    with anyio.fail_after(PATIENCE_S):
        await bus.open()
    try:
        yield bus
    finally:
        await bus.close()


async def test_a_login_that_expires_is_told_and_a_fresh_one_goes_on(
    jwt_server: NatsServer, users: NatsUsers, caplog: pytest.LogCaptureFixture
) -> None:
    """N-B28: the server ends the connection; with new credentials the subscriptions are back."""
    short = users.mint("short", lifetime_s=1)
    async with connected(jwt_server, short) as bus, connected(jwt_server, users.mint("x")) as other:
        subscription = await bus.subscribe("a")
        await until(lambda: bus.login_refused)
        assert not bus.connected
        await bus.login(users.mint("fresh"))
        await until(lambda: bus.connected)
        assert not bus.login_refused
        await other.publish("a", b"heard")
        assert await read(subscription, 1) == [b"heard"]
    assert short.jwt not in caplog.text
    assert short.seed not in caplog.text


async def test_a_new_login_that_is_refused_leaves_the_old_one_in_use(
    jwt_server: NatsServer, users: NatsUsers, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(jwt_server, users.mint("good")) as bus:
        subscription = await bus.subscribe("a")
        await bus.login(NatsUsers().mint("of another operator"))
        assert bus.connected
        assert bus.login_refused
        await bus.publish("a", b"heard")
        assert await read(subscription, 1) == [b"heard"]
    assert "the old login is kept while it lasts" in caplog.text


async def test_a_subject_that_a_new_login_may_not_listen_to_is_named(
    jwt_server: NatsServer, users: NatsUsers, caplog: pytest.LogCaptureFixture
) -> None:
    """N-B27: a denial at a later connection is no less an error than at the first."""
    async with connected(jwt_server, users.mint("wide")) as bus:
        await bus.subscribe("nodes.n1.stop")
        await bus.subscribe("_INBOX.n1")
        denied = [bus.denied]
        await bus.login(users.mint("narrow", may_listen=["_INBOX.>"]))
        denied.append(bus.denied)
    assert denied == [(), ("nodes.n1.stop",)]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert any("subscription to nodes.n1.stop denied by NATS server" in error for error in errors)


async def test_a_minted_worker_hears_its_node_and_answers_and_nothing_else(
    jwt_server: NatsServer, users: NatsUsers
) -> None:
    """N-B27: the permissions that a newer frontend mints."""
    pair = users.mint_worker("n1")  # type: ignore[arg-type]  # any text will do
    async with (
        connected(jwt_server, BusCredentials.parse(*pair)) as worker,
        connected(jwt_server, users.mint("frontend")) as frontend,
    ):
        subscription = await worker.subscribe("nodes.n1.backend.list")
        with pytest.raises(SubscriptionDenied) as denied:
            await worker.subscribe("nodes.n2.backend.list")
        assert denied.value.subject == "nodes.n2.backend.list"

        async def answer() -> None:
            message = await anext(aiter(subscription))
            await worker.publish(message.reply_to, b"listed")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            assert await frontend.request("nodes.n1.backend.list", b"{}", timeout_s=PATIENCE_S) == b"listed"
