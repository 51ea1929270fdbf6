"""The server's own life: taking the port, keeping it, letting it go."""

import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio import Event, connect_tcp, create_task_group, fail_after

from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.http_server import embedded, serve
from localai_worker.adapters.http_server.routes import node_routes
from localai_worker.adapters.http_server.serve import CannotListen, HttpServer
from localai_worker.domain.backend_logs import BackendLogs
from localai_worker.domain.receive_files import ReceiveFiles
from localai_worker.domain.validate_paths import FileRoots

from .conftest import healthy

LIMIT_S = 20.0


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


def is_free(port: int) -> bool:
    try:
        HttpServer(hello, "127.0.0.1", port).bind()
    except CannotListen:
        return False
    return True


def ipv6_works() -> bool:
    try:
        with closing(socket.socket(socket.AF_INET6)) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_taken_port_is_a_clear_error_with_the_remedy() -> None:
    first = HttpServer(hello, "127.0.0.1", 0)
    port = first.bind()
    with pytest.raises(CannotListen) as caught:
        HttpServer(hello, "127.0.0.1", port).bind()
    assert str(caught.value).startswith(
        f"cannot listen for HTTP on 127.0.0.1:{port}: Address already in use;"
    )
    assert "LOCALAI_HTTP_ADDR" in str(caught.value)
    with pytest.raises(CannotListen):
        HttpServer(hello, "", port).bind()
    first.close()
    first.close()
    second = HttpServer(hello, "127.0.0.1", port)
    assert second.bind() == port
    second.close()


@pytest.mark.parametrize(
    "host", ["no.such.host.invalid", "192.0.2.1", "2001:db8::1", "nul\0", "a" * 300, ".."]
)
def test_an_address_that_is_not_ours_is_a_clear_error(host: str) -> None:
    with pytest.raises(CannotListen, match="cannot listen for HTTP on"):
        HttpServer(hello, host, 0).bind()


@pytest.mark.parametrize("port", [-1, 65536, 70000])
def test_a_port_out_of_range_is_a_clear_error(port: int) -> None:
    with pytest.raises(CannotListen, match="no such port"):
        HttpServer(hello, "127.0.0.1", port).bind()


def test_binding_twice_keeps_the_port() -> None:
    server = HttpServer(hello, "127.0.0.1", 0)
    assert server.bind() == server.bind()
    server.close()


@pytest.mark.parametrize(
    ("host", "families"),
    [("127.0.0.1", {4}), ("0.0.0.0", {4}), ("localhost", {4}), ("::1", {6}), ("[::1]", {6}), ("", {4, 6})],
)
async def test_a_host_says_which_families_are_served(host: str, families: set[int]) -> None:
    if 6 in families and not ipv6_works():
        pytest.skip("this machine has no IPv6")
    server = HttpServer(hello, host, 0)
    reached = set()
    with fail_after(LIMIT_S):
        async with create_task_group() as tasks:
            port = await tasks.start(server.serve)
            for family, address in ((4, "127.0.0.1"), (6, "::1")):
                try:
                    await (await connect_tcp(address, port)).aclose()
                except OSError:
                    continue
                reached.add(family)
            tasks.cancel_scope.cancel()
    assert families <= reached
    assert host != "0.0.0.0" or reached == {4}


async def test_connections_wait_between_bind_and_serve() -> None:
    """The port is taken before the node registers, and nobody who comes early is turned away."""
    server = HttpServer(hello, "127.0.0.1", 0)
    port = server.bind()
    with fail_after(LIMIT_S):
        early = await connect_tcp("127.0.0.1", port)
        await early.send(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")
        async with create_task_group() as tasks:
            assert await tasks.start(server.serve) == port
            assert (await early.receive()).startswith(b"HTTP/1.1 200")
            tasks.cancel_scope.cancel()
        await early.aclose()


async def test_answers_are_not_held_back_by_nagles_algorithm() -> None:
    """Each answer in two packets would wait for the client's delayed acknowledgement, some 40 ms."""
    delays: list[bool] = []

    async def look(scope: Any, receive: Any, send: Any) -> None:
        transport = receive.__self__.transport
        accepted = transport.get_extra_info("socket")
        delays.append(not accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        await hello(scope, receive, send)

    with fail_after(LIMIT_S):
        async with create_task_group() as tasks:
            port = await tasks.start(HttpServer(look, "127.0.0.1", 0).serve)
            async with httpx.AsyncClient(verify=False, trust_env=False) as client:
                await client.get(f"http://127.0.0.1:{port}/")
            tasks.cancel_scope.cancel()
    assert delays == [False]


async def test_the_routes_work_where_the_fast_parser_cannot_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    files = ReceiveFiles(LocalFileSystem(), FileRoots(tmp_path / "m", tmp_path / "d", tmp_path / "s"))
    app = node_routes(files, BackendLogs(), healthy(), "s3cret")
    with fail_after(LIMIT_S):
        async with create_task_group() as tasks:
            port = await tasks.start(HttpServer(app, "127.0.0.1", 0).serve)
            authorized = {"authorization": "Bearer s3cret"}
            async with httpx.AsyncClient(verify=False, trust_env=False, headers=authorized) as client:
                url = f"http://127.0.0.1:{port}/v1/files/models/%C3%BC%2Fx"
                assert (await client.put(url, content=b"y" * 3_000_000)).status_code == 200
                probed = await client.head(url)
                assert dict(probed.headers.raw)[b"x-local-path"] == str(tmp_path / "m" / "ü" / "x").encode()
                assert (await client.get(url)).content == b"y" * 3_000_000
                refused = await client.put(url, content=b"z" * 3_000_000, headers={"authorization": "no"})
                assert refused.status_code == 401
            tasks.cancel_scope.cancel()


async def test_cancelled_it_lets_idle_connections_and_the_port_go() -> None:
    with fail_after(LIMIT_S):
        async with create_task_group() as tasks:
            port = await tasks.start(HttpServer(hello, "127.0.0.1", 0).serve)
            async with httpx.AsyncClient(verify=False, trust_env=False) as client:
                assert (await client.get(f"http://127.0.0.1:{port}/")).text == "hi"
                tasks.cancel_scope.cancel()
    assert is_free(port)


async def test_a_running_request_gets_its_time_to_end() -> None:
    entered, leave = Event(), Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await leave.wait()
        await hello(scope, receive, send)

    answers: list[int] = []
    with fail_after(LIMIT_S):
        async with create_task_group() as clients, create_task_group() as tasks:
            port = await tasks.start(HttpServer(slow, "127.0.0.1", 0).serve)

            async def ask() -> None:
                async with httpx.AsyncClient(verify=False, trust_env=False) as client:
                    answers.append((await client.get(f"http://127.0.0.1:{port}/")).status_code)

            clients.start_soon(ask)
            await entered.wait()
            tasks.cancel_scope.cancel()
            leave.set()
    assert answers == [200]
    assert is_free(port)


async def test_an_upload_cut_off_at_shutdown_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-K12"""
    monkeypatch.setattr(serve, "GRACE_S", 0.0)
    files = ReceiveFiles(LocalFileSystem(), FileRoots(tmp_path / "m", tmp_path / "d", tmp_path / "s"))
    await files.prepare()
    (tmp_path / "m" / "x").write_bytes(b"old")
    opened = Event()
    receive = files.receive

    async def note(key: str, **headers: Any) -> Any:
        upload = await receive(key, **headers)
        opened.set()
        return upload

    monkeypatch.setattr(files, "receive", note)
    with fail_after(LIMIT_S):
        async with create_task_group() as tasks:
            app = node_routes(files, BackendLogs(), healthy(), "")
            port = await tasks.start(HttpServer(app, "127.0.0.1", 0).serve)
            stream = await connect_tcp("127.0.0.1", port)
            await stream.send(b"PUT /v1/files/models/x HTTP/1.1\r\nHost: n\r\nContent-Length: 99\r\n\r\nabc")
            await opened.wait()
            assert len(list((tmp_path / "m").iterdir())) == 2
            tasks.cancel_scope.cancel()
        await stream.aclose()
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["x"]
    assert (tmp_path / "m" / "x").read_bytes() == b"old"
    assert is_free(port)


async def test_without_a_token_everything_is_open_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """H-73385713c: seed says nothing."""
    files = ReceiveFiles(LocalFileSystem(), FileRoots(Path("/nowhere"), Path("/nowhere"), Path("/nowhere")))
    app = node_routes(files, BackendLogs(), healthy(), "")
    assert "no registration token" in caplog.text
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
        assert (await client.head("/v1/files/models/x")).status_code == 404
        assert (await client.get("/v1/files-list/models/x")).status_code == 404


def test_importing_the_routes_and_the_server_loads_neither_starlette_nor_uvicorn() -> None:
    """A command that serves nothing must not pay for them."""
    code = (
        "import sys, localai_worker.adapters.http_server.routes, localai_worker.adapters.http_server.serve;"
        "print({name.partition('.')[0] for name in sys.modules} & {'starlette', 'uvicorn', 'httptools'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "set()\n"
