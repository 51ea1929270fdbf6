"""What `HttpFrontendClient` puts on the wire, and what it makes of answers no frontend should give."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from localai_worker.adapters.frontend.client import HttpFrontendClient
from localai_worker.domain.errors import FrontendRefused, FrontendUnavailable
from localai_worker.domain.messages.registration import Heartbeat, RegisterRequest
from localai_worker.domain.node import NodeId
from tests.golden_http import Exchange, golden_http
from tests.serving import serving

NODE_ID = NodeId("7b0f1b1e-6c1e-4f0e-9f3e-2a54c1d5e001")
NODE = RegisterRequest(name="gpu-1", address="gpu-1:50051", http_address="gpu-1:50050")
Answer = Callable[[httpx.Request], httpx.Response]


async def ask(
    answer: Answer,
    *,
    url: str = "http://frontend:8080",
    token: str = "s3cret",
    call: Callable[[HttpFrontendClient], Awaitable[object]] = lambda client: client.register(NODE),
) -> object:
    client = HttpFrontendClient(url, token, transport=httpx.MockTransport(answer))
    try:
        return await call(client)
    finally:
        await client.close()


def registered(request: httpx.Request) -> httpx.Response:
    return httpx.Response(201, json={"id": "n-1", "status": "healthy"})


def _calls(exchange: Exchange) -> Callable[[HttpFrontendClient], Awaitable[object]]:
    match exchange.path.rpartition("/")[2]:
        case "register":
            request = RegisterRequest.from_wire(exchange.content)
            return lambda client: client.register(request)
        case "heartbeat":
            beat = Heartbeat.from_wire(exchange.content)
            return lambda client: client.heartbeat(NODE_ID, beat)
        case "drain":
            return lambda client: client.drain(NODE_ID)
        case _:
            return lambda client: client.loaded_models(NODE_ID)


@pytest.mark.parametrize(
    "name",
    [
        "seed-01-register-gpu",
        "seed-02-register-cpu-labels-pending",
        "seed-04-heartbeat",
        "seed-06-drain",
        "seed-07-drain-poll-models",
        "newer-15-register-nats-credentials",
    ],
)
async def test_requests_are_sent_as_recorded(name: str) -> None:
    """H-31: no browser headers either, nothing but what the recording has and what HTTP itself needs."""
    exchange = golden_http(name)
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(exchange.status, json=exchange.answer)

    await ask(answer, call=_calls(exchange))
    [request] = sent
    assert (request.method, request.url.raw_path.decode()) == (exchange.method, exchange.path)
    content = request.content
    assert (json.loads(content) if content else None) == exchange.body
    framing = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-length"}
    headers = {key: value for key, value in request.headers.items() if key not in framing}
    assert headers == {key.lower(): value for key, value in exchange.headers.items()}


@pytest.mark.parametrize(
    ("base", "wanted"),
    [
        ("http://frontend:8080/", "http://frontend:8080/api/node/register"),
        ("http://frontend:8080///", "http://frontend:8080/api/node/register"),
        (" https://proxy/localai/ ", "https://proxy/localai/api/node/register"),
        ("http://[fd00::7]:8080", "http://[fd00::7]:8080/api/node/register"),
    ],
)
async def test_paths_are_appended_to_the_base_url(base: str, wanted: str) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return registered(request)

    await ask(answer, url=base)
    assert seen == [wanted]


async def test_without_a_token_no_authorization_is_sent() -> None:
    headers: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        headers.append(request.headers)
        return registered(request)

    await ask(answer, token="")
    assert "authorization" not in headers[0]


async def test_the_token_wins_over_user_information_in_the_url() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return registered(request)

    await ask(answer, url="http://ops:hunter2@frontend:8080")
    await ask(answer, url="http://ops:hunter2@frontend:8080", token="")
    assert seen[0] == "Bearer s3cret"
    assert seen[1].startswith("Basic ")


async def test_no_cookie_is_kept() -> None:
    cookies: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        cookies.append(request.headers.get("cookie"))
        return httpx.Response(201, json={"id": "n-1"}, headers={"Set-Cookie": "stick=1; Path=/"})

    async def twice(client: HttpFrontendClient) -> None:
        await client.register(NODE)
        await client.register(NODE)

    await ask(answer, call=twice)
    assert cookies == [None, None]


@pytest.mark.parametrize(
    "url", ["", "frontend:8080", "ftp://frontend", "http://", "http://[::1", "http://a:b:c"]
)
def test_a_base_that_is_no_url_of_a_host_is_refused_at_once(url: str) -> None:
    with pytest.raises(FrontendUnavailable):
        HttpFrontendClient(url)


def test_no_password_shows_when_the_base_url_is_wrong() -> None:
    with pytest.raises(FrontendUnavailable) as caught:
        HttpFrontendClient("ftp://ops:hunter2@frontend")
    assert "hunter2" not in str(caught.value)


async def test_no_secret_shows_in_an_error() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    with pytest.raises(FrontendUnavailable, match="connection refused") as caught:
        await ask(answer, url="http://ops:hunter2@frontend:8080", token="")
    assert "hunter2" not in str(caught.value)


async def test_a_token_that_is_no_header_value_is_named_without_being_shown() -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError("nothing may arrive")

    async with serving(app) as address:
        client = HttpFrontendClient(f"http://{address}", "line\nbreak")
        with pytest.raises(FrontendUnavailable, match="line break or a space in the token") as caught:
            await client.register(NODE)
        await client.close()
    assert "line\\nbreak" not in repr(caught.value)
    assert caught.value.__cause__ is None


async def test_a_redirect_names_where_it_leads_without_its_secrets() -> None:
    """H-31"""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": "https://u:hunter2@login.example/sso?token=abc"})

    with pytest.raises(FrontendUnavailable) as caught:
        await ask(answer)
    assert "https://login.example/sso" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize("location", ["", "http://[::1", "/login", "http://a\x01b/"])
async def test_a_redirect_to_nowhere_is_unavailable_too(location: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(301, headers={"Location": location} if location else {})

    with pytest.raises(FrontendUnavailable):
        await ask(answer)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"id":""}', b'{"id":7}', b"[]", b"<html>", b'{"id":"n-1"} {}', b"\xff\xfe"]
)
async def test_a_success_without_a_usable_id_is_unavailable(body: bytes) -> None:
    with pytest.raises(FrontendUnavailable, match="registration"):
        await ask(lambda request: httpx.Response(200, content=body))


async def test_any_2xx_with_an_id_registers() -> None:
    reply = await ask(lambda request: httpx.Response(202, json={"id": "n-1"}))
    assert getattr(reply, "id", "") == "n-1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"error":{"code":403,"message":"no\\nway","type":"node_error"}}', "no way"),
        (b'{"error":"plain"}', "plain"),
        (b"<h1>Forbidden</h1>\n\x1b[31m", "<h1>Forbidden</h1> \ufffd[31m"),
        (b"", "Forbidden"),
        (b"x" * 10_000, "x" * 300),
    ],
)
async def test_a_refusal_carries_what_the_answer_says(content: bytes, message: str) -> None:
    with pytest.raises(FrontendRefused) as caught:
        await ask(lambda request: httpx.Response(403, content=content))
    assert (caught.value.status, caught.value.message) == (403, message)


async def test_an_endless_answer_is_cut_off() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1024 * 1024

    with pytest.raises(FrontendUnavailable, match="exceeds 16777216 bytes"):
        await ask(lambda request: httpx.Response(201, content=endless()))


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
async def test_a_frontend_on_this_machine_is_never_asked_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:1")

    async def register(request: Request) -> Response:
        return Response(b'{"id":"n-1"}', 201)

    app = Starlette(routes=[Route("/api/node/register", register, methods=["POST"])])
    async with serving(app) as address:
        client = HttpFrontendClient(f"http://{address}")
        assert (await client.register(NODE)).id == "n-1"
        await client.close()


async def test_another_frontend_is_asked_through_the_operators_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[str] = []

    async def proxy(request: Request) -> Response:
        targets.append(request.url.path)
        return Response(b'{"id":"n-1"}', 201)

    app = Starlette(routes=[Route("/{rest:path}", proxy, methods=["POST"])])
    async with serving(app) as address:
        monkeypatch.setenv("HTTP_PROXY", f"http://{address}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        client = HttpFrontendClient("http://frontend.invalid:8080")
        assert (await client.register(NODE)).id == "n-1"
        await client.close()
    assert targets == ["/api/node/register"]


async def test_a_frontend_nobody_listens_for_is_unavailable() -> None:
    client = HttpFrontendClient("http://127.0.0.1:1")
    with pytest.raises(FrontendUnavailable):
        await client.register(NODE)
    await client.close()


async def test_an_id_is_one_segment_of_the_path_whatever_is_in_it() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path.decode())
        return httpx.Response(200, json={"message": "heartbeat received"})

    await ask(answer, call=lambda client: client.heartbeat(NodeId("a/b?c#d e"), Heartbeat()))
    assert seen == ["/api/node/a%2Fb%3Fc%23d%20e/heartbeat"]
