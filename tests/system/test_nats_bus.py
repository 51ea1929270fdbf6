"""What only a real NATS server can do to the bus: logins, TLS, errors, clusters."""

import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from localai_worker.adapters.nats import bus as bus_module
from localai_worker.adapters.nats.bus import NatsMessageBus
from localai_worker.adapters.nats.tls import TlsFiles
from localai_worker.domain.errors import BusUnavailable, NoResponders, RequestTimedOut, SubscriptionDenied
from localai_worker.domain.ports.bus import BusMessage
from tests.servers import NatsServer, free_port

PATIENCE_S = 20.0
StartServer = Callable[[str], NatsServer]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts nats-servers by their config; they end with the test."""
    servers: list[NatsServer] = []

    def start(config: str) -> NatsServer:
        server = NatsServer(tmp_path, config)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await checkpoint()


async def talk(bus: NatsMessageBus) -> None:
    """Prove that `bus` works both ways."""
    with anyio.fail_after(PATIENCE_S):
        subscription = await bus.subscribe("proof")
        await bus.publish("proof", b"!")
        assert await anext(aiter(subscription)) == BusMessage("proof", b"!")
        await subscription.unsubscribe()


@pytest.mark.parametrize(
    ("config", "userinfo"),
    [
        ('authorization { user: ada, password: "p@ss, wörd" }', "ada:p%40ss%2C%20w%C3%B6rd"),
        ('authorization { token: "t0ken/%" }', "t0ken%2F%25"),
    ],
)
async def test_the_login_stands_in_the_url(start_server: StartServer, config: str, userinfo: str) -> None:
    server = start_server(config)
    bus = NatsMessageBus(server.url.replace("://", f"://{userinfo}@"))
    await bus.open()
    await talk(bus)
    await bus.close()


async def test_a_refused_login_is_tried_again_and_logged_without_the_password(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="localai_worker")
    server = start_server('authorization { user: ada, password: "lovelace" }')
    bus = NatsMessageBus(server.url.replace("://", "://ada:sesame@"), retry_s=0.02)
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bus.open)
            await until(lambda: caplog.text.count("Authorization Violation") >= 2)
            assert not bus.connected
            assert bus.login_refused
            loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
            assert len(loud) == 1, "the same reason is told once"
            assert f"nats://***@127.0.0.1:{server.port}" in caplog.text
            assert "sesame" not in caplog.text
            server.reload('authorization { user: ada, password: "sesame" }')
    await talk(bus)
    await bus.close()


async def test_an_error_that_closes_the_client_for_good_is_survived(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    """N-B28: after an `-ERR` a new client is built and asks for every subscription again."""
    server = start_server("max_subscriptions: 2")
    bus = NatsMessageBus(server.url, retry_s=0.02)
    await bus.open()
    kept = [await bus.subscribe("a"), await bus.subscribe("b")]
    one_too_many = await bus.subscribe("c")
    await until(lambda: "disconnected: 'maximum subscriptions exceeded'" in caplog.text)
    await one_too_many.unsubscribe()
    await until(lambda: bus.connected)
    for subscription in kept:
        await bus.publish(subscription.subject, b"!")
        with anyio.fail_after(PATIENCE_S):
            assert (await anext(aiter(subscription))).payload == b"!"
    await bus.close()


async def test_a_login_that_is_withdrawn_and_given_back(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    login = 'authorization { users: [ { user: ada, password: "one" }, { user: bob, password: "two" } ] }'
    server = start_server(login)
    ada = NatsMessageBus(server.url.replace("://", "://ada:one@"), retry_s=0.02)
    bob = NatsMessageBus(server.url.replace("://", "://bob:two@"), retry_s=0.02)
    await ada.open()
    await bob.open()
    subscription = await ada.subscribe("nodes.n1.stop")
    server.reload('authorization { users: [ { user: bob, password: "two" } ] }')
    await until(lambda: "Authorization Violation" in caplog.text)
    server.reload(login)
    await until(lambda: ada.connected and bob.connected)
    await bob.publish("nodes.n1.stop", b"null")
    with anyio.fail_after(PATIENCE_S):
        assert (await anext(aiter(subscription))).payload == b"null"
    await ada.close()
    await bob.close()


async def test_text_that_is_no_utf8_deafens_nobody(start_server: StartServer) -> None:
    server = start_server("")
    bus = NatsMessageBus(server.url)
    await bus.open()
    subscription = await bus.subscribe("a.*")
    async with await anyio.connect_tcp("127.0.0.1", server.port) as raw:
        await raw.send(b"CONNECT {}\r\nPUB a.\xff re\xfeply 1\r\nx\r\nPUB a.b 1\r\ny\r\n")
        with anyio.fail_after(PATIENCE_S):
            assert [(await anext(aiter(subscription))).payload for _ in range(2)] == [b"x", b"y"]
    assert bus.connected
    await bus.close()


async def test_a_cancelled_subscribe_leaves_the_connection_whole(start_server: StartServer) -> None:
    server = start_server("")
    bus = NatsMessageBus(server.url)
    await bus.open()
    for steps in range(6):  # cut it short at every point where it waits
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bus.subscribe, "a")
            for _ in range(steps):
                await checkpoint()
            tasks.cancel_scope.cancel()
    await talk(bus)
    await bus.publish("a", b"nobody keeps it")
    await talk(bus)
    assert bus.connected
    await bus.close()


async def test_a_subscription_denied_after_a_reconnect_is_logged_as_an_error(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server("")
    bus = NatsMessageBus(server.url, retry_s=0.02)
    await bus.open()
    allowed, refused = await bus.subscribe("allowed"), await bus.subscribe("Nodes.N1.Stop")
    server.stop()
    await until(lambda: not bus.connected)
    server.config = """
        no_auth_user: anybody
        authorization {
          default_permissions { subscribe { deny: "Nodes.>" } }
          users: [ { user: anybody, password: "" } ]
        }
        """
    server.start()
    await until(lambda: bus.connected)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert any("subscription to Nodes.N1.Stop denied" in error for error in errors)
    with pytest.raises(SubscriptionDenied):
        await bus.subscribe("Nodes.N1.Stop")
    await bus.publish("allowed", b"!")
    with anyio.fail_after(PATIENCE_S):
        assert (await anext(aiter(allowed))).payload == b"!"
    await refused.unsubscribe()
    await bus.close()


async def test_any_server_of_the_list_will_do(start_server: StartServer) -> None:
    server = start_server("")
    bus = NatsMessageBus(f"nats://127.0.0.1:{free_port()},{server.url}", retry_s=0.02)
    await bus.open()
    await talk(bus)
    await bus.close()


async def test_a_server_of_the_cluster_that_nobody_named_takes_over(start_server: StartServer) -> None:
    routes = [free_port(), free_port()]
    login = 'authorization { user: ada, password: "lovelace" }'
    first, second = (
        start_server(
            f"server_name: s{own}, {login}\n"
            f'cluster {{ name: c, listen: "127.0.0.1:{own}", routes: ["nats://127.0.0.1:{other}"] }}'
        )
        for own, other in (routes, reversed(routes))
    )
    witness = NatsMessageBus(second.url.replace("://", "://ada:lovelace@"))
    await witness.open()
    bus = NatsMessageBus(first.url.replace("://", "://ada:lovelace@"), retry_s=0.02)
    await bus.open()
    subscription = await bus.subscribe("a")
    with anyio.fail_after(PATIENCE_S):  # until the two have found each other
        while await _unheard(witness, "a"):
            await checkpoint()
    first.stop()
    await until(lambda: not bus.connected)
    await until(lambda: bus.connected)
    await witness.publish("a", b"over here")
    with anyio.fail_after(PATIENCE_S):
        while (await anext(aiter(subscription))).payload != b"over here":
            await checkpoint()
    await bus.close()
    await witness.close()


async def _unheard(bus: NatsMessageBus, subject: str) -> bool:
    try:
        await bus.request(subject, b"", timeout_s=0.05)
    except NoResponders:
        return True
    except RequestTimedOut:
        return False
    return False


def all_stopped(pid: int) -> bool:
    """Whether every thread of the process stands still; the signal takes a moment to reach them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all(") T " in (task / "stat").read_text() for task in tasks)


async def test_a_request_is_bounded_when_the_server_hangs(start_server: StartServer) -> None:
    """Also the first one, which asks for the place where replies come; the next one is answered again."""
    server = start_server("")
    bus = NatsMessageBus(server.url)
    await bus.open()
    subscription = await bus.subscribe("a")

    async def answer() -> None:
        async for message in subscription:
            await bus.publish(message.reply_to, b"!")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            await until(lambda: all_stopped(server.pid))
            with pytest.raises(RequestTimedOut):
                await bus.request("a", b"", timeout_s=0.01)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert await bus.request("a", b"", timeout_s=PATIENCE_S) == b"!"
        tasks.cancel_scope.cancel()
    await bus.close()


async def test_close_is_bounded_when_the_server_hangs(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "CLOSE_S", 0.05)
    server = start_server("")
    bus = NatsMessageBus(server.url)
    await bus.open()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for _ in range(5):
            await bus.publish("a", bytes(bus.max_payload_bytes))
        with anyio.fail_after(PATIENCE_S):
            await bus.close()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert not bus.connected


@pytest.fixture
def certificate(tmp_path: Path) -> TlsFiles:
    """A self-signed certificate for 127.0.0.1, its own authority."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    files = TlsFiles(ca=tmp_path / "cert.pem", certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    subprocess.run(
        f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {files.key} -out {files.certificate}".split(),
        check=True,
        capture_output=True,
    )
    return files


async def test_tls_with_an_own_authority_and_a_client_certificate(
    start_server: StartServer, certificate: TlsFiles
) -> None:
    server = start_server(
        f'tls {{ cert_file: "{certificate.certificate}", key_file: "{certificate.key}", '
        f'ca_file: "{certificate.ca}", verify: true }}'
    )
    bus = NatsMessageBus(server.url, tls=certificate)
    await bus.open()
    await talk(bus)
    await bus.close()


async def test_a_certificate_nobody_vouches_for_is_refused(
    start_server: StartServer, certificate: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server(f'tls {{ cert_file: "{certificate.certificate}", key_file: "{certificate.key}" }}')
    bus = NatsMessageBus(server.url.replace("nats://", "tls://"), retry_s=0.02)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bus.open)
        await until(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text)
        tasks.cancel_scope.cancel()
    assert not bus.connected


async def test_no_login_is_sent_in_the_clear_when_tls_was_asked_for(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server('authorization { token: "t0ken" }')
    bus = NatsMessageBus(server.url.replace("nats://", "tls://t0ken@"), retry_s=0.02)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bus.open)
        await until(lambda: "secure connection not available" in caplog.text)
        tasks.cancel_scope.cancel()
    assert not bus.connected


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        (TlsFiles(ca=Path("/nowhere/ca.pem")), "/nowhere/ca.pem"),
        (TlsFiles(ca=Path(__file__)), "TLS files"),
        (TlsFiles(certificate=Path("cert.pem")), "needs its key"),
    ],
)
async def test_unusable_tls_files_fail_at_once(files: TlsFiles, hint: str) -> None:
    with pytest.raises(BusUnavailable, match=hint):
        await NatsMessageBus(tls=files).open()
