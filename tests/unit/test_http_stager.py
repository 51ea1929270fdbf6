"""The simulator's HTTP stager against real servers: ours, one that keeps partial uploads, broken ones."""

import hashlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.abc import SocketStream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.http_server.routes import node_routes
from localai_worker.adapters.http_server.serve import Application
from localai_worker.adapters.memory.frontend_nodes import Generation
from localai_worker.app.simulator.file_http import StagingFailed, TransferBroken
from localai_worker.app.simulator.go_url import UnsendableKey
from localai_worker.app.simulator.staging import HttpStager
from localai_worker.domain.backend_logs import BackendLogs
from localai_worker.domain.errors import FileUnreadable, FileUnwritable
from localai_worker.domain.receive_files import ReceiveFiles
from localai_worker.domain.validate_paths import FileRoots
from tests.golden_http import golden_http
from tests.serving import serving
from tests.unit.http_server.conftest import healthy

TOKEN = "s3cret"
KEY = "models/qwen/qwen.gguf"
CONTENT = bytes(range(256)) * 4096  # several chunks


@dataclass
class Recorder:
    """An application that notes the requests it passes on."""

    app: Application
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        self.seen.append((scope["method"], scope["raw_path"].decode(), headers))
        await self.app(scope, receive, send)

    @property
    def methods(self) -> list[str]:
        return [method for method, _, _ in self.seen]


@dataclass
class Stage:
    """A worker's file server and a stager that talks to it."""

    root: Path
    address: str
    requests: Recorder
    stager: HttpStager

    def source(self, content: bytes = CONTENT, name: str = "local.gguf") -> Path:
        path = self.root / name
        path.write_bytes(content)
        return path


@asynccontextmanager
async def staging(
    app: Application, tmp_path: Path, generation: Generation = "newer", waits_s: tuple[float, ...] = (0, 0)
) -> AsyncIterator[Stage]:
    """A stager that talks to `app` without a socket between them."""
    recorder = Recorder(app)
    stager = HttpStager("worker:50050", TOKEN, generation, waits_s, httpx.ASGITransport(recorder))
    yield Stage(tmp_path, stager.http_address, recorder, stager)
    await stager.close()


@pytest.fixture(params=["seed", "newer"])
def generation(request: pytest.FixtureRequest) -> Generation:
    generation: Generation = request.param
    return generation


@pytest.fixture
async def worker(tmp_path: Path, generation: Generation) -> AsyncIterator[Stage]:
    roots = FileRoots(tmp_path / "models", tmp_path / "data", tmp_path / "staging")
    receive = ReceiveFiles(LocalFileSystem(), roots)
    await receive.prepare()
    recorder = Recorder(node_routes(receive, BackendLogs(), healthy(), TOKEN))
    async with serving(recorder) as address:
        stager = HttpStager(address, TOKEN, generation, (0, 0))
        yield Stage(tmp_path, address, recorder, stager)
        await stager.close()


async def test_a_file_arrives_whole_and_its_path_comes_back(worker: Stage) -> None:
    path = await worker.stager.ensure(worker.source(), KEY)
    assert path == str(worker.root / KEY)
    assert Path(path).read_bytes() == CONTENT


async def test_a_file_the_worker_has_already_is_not_sent_again(worker: Stage) -> None:
    """S-1.5.1"""
    first = await worker.stager.ensure(worker.source(), KEY)
    worker.requests.seen.clear()
    assert await worker.stager.ensure(worker.source(), KEY) == first
    assert worker.requests.methods == ["HEAD"]


async def test_a_file_that_changed_replaces_the_old_one(worker: Stage) -> None:
    await worker.stager.ensure(worker.source(), KEY)
    path = await worker.stager.ensure(worker.source(b"another"), KEY)
    assert Path(path).read_bytes() == b"another"


async def test_an_empty_file_goes_without_length_and_range(worker: Stage) -> None:
    path = await worker.stager.ensure(worker.source(b""), KEY)
    assert Path(path).read_bytes() == b""
    [headers] = [headers for method, _, headers in worker.requests.seen if method == "PUT"]
    assert headers["transfer-encoding"] == "chunked"
    assert not {"content-length", "content-range"} & headers.keys()


@pytest.mark.parametrize(
    ("key", "stored"),
    [
        ("models/my model (v2).gguf", "models/my model (v2).gguf"),
        ("models/über/ж.gguf", "models/über/ж.gguf"),
        ("models/100%25.gguf", "models/100%.gguf"),
        ("models/a#b.gguf", "models/a"),
        ("models/a?b.gguf", "models/a"),
        ("ephemeral/inputs/1a2b3c4d/cat.png", "staging/ephemeral/inputs/1a2b3c4d/cat.png"),
    ],
)
async def test_keys_arrive_as_a_go_frontend_sends_them(worker: Stage, key: str, stored: str) -> None:
    """S-K20, S-1.5.12: spaces are encoded, a percent sign must be one, `#` and `?` cut the key."""
    assert await worker.stager.ensure(worker.source(), key) == str(worker.root / stored)
    assert (worker.root / stored).read_bytes() == CONTENT


@pytest.mark.parametrize("key", ["models/100%", "models/a\nb"])
async def test_a_key_without_url_is_refused_before_anything_is_sent(worker: Stage, key: str) -> None:
    with pytest.raises(UnsendableKey):
        await worker.stager.ensure(worker.source(), key)
    assert not worker.requests.seen


async def test_a_key_whose_query_is_no_query_cannot_be_sent(worker: Stage) -> None:
    for key in ("models/a?b c", "models/a?ü"):
        with pytest.raises(StagingFailed, match="cannot be sent"):
            await worker.stager.ensure(worker.source(), key)


async def test_a_refusal_is_final_and_tells_the_workers_words(worker: Stage) -> None:
    with pytest.raises(StagingFailed, match=r"answers 400: path .* is outside allowed directory") as caught:
        await worker.stager.ensure(worker.source(), "models/..%2F..%2Fetc%2Fx")
    assert not isinstance(caught.value, TransferBroken)
    assert worker.requests.methods.count("PUT") == 1


async def test_a_wrong_token_is_refused(worker: Stage) -> None:
    """S-1.5.11"""
    stranger = HttpStager(worker.address, "nope")
    with pytest.raises(StagingFailed, match="401"):
        await stranger.ensure(worker.source(), KEY)
    with pytest.raises(StagingFailed, match="401"):
        await stranger.alloc_temp()
    await stranger.close()


async def test_a_token_that_is_no_header_value_is_not_shown(worker: Stage) -> None:
    stranger = HttpStager(worker.address, "line\nbreak")
    with pytest.raises(StagingFailed, match="line break or a space in the token") as caught:
        await stranger.ensure(worker.source(), KEY)
    assert "break'" not in str(caught.value)
    await stranger.close()


@pytest.mark.parametrize("name", ["missing.gguf", "."])
async def test_a_source_that_cannot_be_read_is_named(worker: Stage, name: str) -> None:
    with pytest.raises(FileUnreadable) as caught:
        await worker.stager.ensure(worker.root / name, KEY)
    assert caught.value.path == worker.root / name
    assert "PUT" not in worker.requests.methods


async def test_a_source_that_shrinks_while_it_is_sent_is_an_error_and_stores_nothing(worker: Stage) -> None:
    source = worker.source()

    async def shrink(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "PUT":
            source.write_bytes(b"short")
        await inner(scope, receive, send)

    inner, worker.requests.app = worker.requests.app, shrink
    with pytest.raises(FileUnreadable, match="became shorter"):
        await worker.stager.ensure(worker.source(CONTENT * 32), KEY)
    assert not (worker.root / KEY).exists()


async def test_a_result_is_fetched_from_the_temporary_file_made_for_it(worker: Stage, tmp_path: Path) -> None:
    """S-1.5.6, S-1.5.8"""
    remote = Path(await worker.stager.alloc_temp())
    assert remote.parent == tmp_path / "staging"
    remote.write_bytes(b"an image")
    target = tmp_path / "result.png"
    assert await worker.stager.fetch(remote.name, target) == 8
    assert target.read_bytes() == b"an image"


async def test_a_fetch_that_fails_leaves_what_was_there(worker: Stage, tmp_path: Path) -> None:
    target = tmp_path / "out" / "result.png"
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(StagingFailed, match="404"):
        await worker.stager.fetch("nothing.png", target)
    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["result.png"]


async def test_a_fetch_into_nowhere_is_an_error(worker: Stage, tmp_path: Path) -> None:
    await worker.stager.ensure(worker.source(), KEY)
    with pytest.raises(FileUnwritable):
        await worker.stager.fetch(KEY, tmp_path / "no" / "such" / "place")


async def test_a_directory_is_listed_and_a_missing_one_is_an_error(worker: Stage) -> None:
    """S-1.5.9"""
    for name in ("b/c.json", "a.gguf"):
        await worker.stager.ensure(worker.source(), f"models/exported/{name}")
    assert await worker.stager.list_dir("models/exported") == ("a.gguf", "b/c.json")
    with pytest.raises(StagingFailed, match="directory not found"):
        await worker.stager.list_dir("models/nothing")


# Servers that are not ours.


async def _answers(*answers: Response) -> Application:
    """An application that gives each answer in turn, and the last one for ever."""
    waiting = list(answers)

    async def answer(request: Request) -> Response:
        await request.body()
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return Starlette(routes=[Route("/{path:path}", answer, methods=["HEAD", "PUT", "GET", "POST"])])


async def test_an_empty_directory_may_be_null(tmp_path: Path) -> None:
    async with staging(await _answers(JSONResponse({"files": None})), tmp_path) as stage:
        assert await stage.stager.list_dir("models/empty") == ()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"local_path":7}', b'{"local_path":""}', b"<html>"])
async def test_a_success_without_a_path_is_a_failure(tmp_path: Path, content: bytes) -> None:
    """S-1.5.2"""
    async with staging(await _answers(Response(content)), tmp_path) as stage:
        with pytest.raises(StagingFailed):
            await stage.stager.ensure(stage.source(), KEY)


@pytest.mark.parametrize("status", [201, 204, 301, 400, 409, 500, 503])
async def test_any_status_but_200_is_final(tmp_path: Path, generation: Generation, status: int) -> None:
    """S-1.5.2"""
    async with staging(await _answers(Response(status_code=status)), tmp_path, generation) as stage:
        with pytest.raises(StagingFailed, match=f"answers {status}"):
            await stage.stager.ensure(stage.source(), KEY)
        assert stage.requests.methods.count("PUT") == 1


@pytest.mark.parametrize("status", [404, 405, 500])
async def test_whatever_a_probe_answers_the_file_is_sent(
    tmp_path: Path, generation: Generation, status: int
) -> None:
    async def answer(request: Request) -> Response:
        return (
            JSONResponse({"local_path": "/m/x"}) if request.method == "PUT" else Response(status_code=status)
        )

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["HEAD", "PUT"])])
    async with staging(app, tmp_path, generation) as stage:
        assert await stage.stager.ensure(stage.source(), KEY) == "/m/x"


async def test_only_a_newer_frontend_goes_on_after_308_or_416(tmp_path: Path) -> None:
    """S-1.5.2"""
    for status in (308, 416):
        async with staging(await _answers(Response(status_code=status)), tmp_path, "seed") as stage:
            with pytest.raises(StagingFailed):
                await stage.stager.ensure(stage.source(), KEY)
            assert stage.requests.methods == ["HEAD", "PUT"]
        async with staging(await _answers(Response(status_code=status)), tmp_path, "newer") as stage:
            with pytest.raises(TransferBroken, match=str(status)):
                await stage.stager.ensure(stage.source(), KEY)
            assert stage.requests.methods == ["HEAD", *["HEAD", "PUT"] * 3]


async def test_a_308_that_leads_elsewhere_is_a_redirect_and_final(tmp_path: Path) -> None:
    """H-31"""
    elsewhere = Response(status_code=308, headers={"Location": "http://elsewhere.invalid/"})
    async with staging(await _answers(elsewhere), tmp_path) as stage:
        with pytest.raises(StagingFailed) as caught:
            await stage.stager.ensure(stage.source(), KEY)
        assert not isinstance(caught.value, TransferBroken)


@dataclass
class PartKeepingWorker:
    """Keeps what came of a broken upload, as newer workers do; takes `takes` bytes of each request."""

    takes: int
    held: bytearray = field(default_factory=bytearray)
    target: str = ""
    ranges: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        reply = self._head() if request.method == "HEAD" else await self._put(request)
        await reply(scope, receive, send)

    def _head(self) -> Response:
        if not self.target:
            return Response(status_code=404)
        return Response(headers={"X-File-Size": str(len(self.held)), "X-Target-SHA256": self.target.upper()})

    async def _put(self, request: Request) -> Response:
        self.ranges.append(request.headers["Content-Range"])
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", self.ranges[-1])
        assert match is not None
        start, end, total = map(int, match.groups())
        assert int(request.headers["Content-Length"]) == end - start + 1
        if start != len(self.held):
            return Response(status_code=416)
        self.target = request.headers["X-Content-SHA256"]
        self.held += (await request.body())[: self.takes]
        if len(self.held) < total:
            return Response(status_code=308, headers={"X-File-Size": str(len(self.held))})
        assert hashlib.sha256(self.held).hexdigest() == self.target
        return JSONResponse({"local_path": "/models/x"})


async def test_a_newer_frontend_resumes_where_the_worker_is(tmp_path: Path) -> None:
    """S-B14"""
    worker = PartKeepingWorker(takes=4)
    async with staging(worker, tmp_path) as stage:
        assert await stage.stager.ensure(stage.source(b"0123456789"), KEY) == "/models/x"
    assert worker.held == b"0123456789"
    assert worker.ranges == ["bytes 0-9/10", "bytes 4-9/10", "bytes 8-9/10"]


async def test_a_part_of_another_file_is_not_resumed(tmp_path: Path) -> None:
    worker = PartKeepingWorker(takes=10, held=bytearray(b"zzz"), target="f" * 64)
    async with staging(worker, tmp_path) as stage:
        with pytest.raises(TransferBroken, match="416"):
            await stage.stager.ensure(stage.source(b"0123456789"), KEY)
    assert worker.ranges == ["bytes 0-9/10"] * 3


@pytest.mark.parametrize("size", ["", "-1", "ten", "10", "11", "9" * 40, "٣"])
async def test_a_part_of_no_usable_size_is_not_resumed(tmp_path: Path, size: str) -> None:
    target = hashlib.sha256(b"0123456789").hexdigest()
    ranges: list[str] = []

    async def worker(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "PUT":
            ranges.append(Request(scope).headers["Content-Range"])
            await JSONResponse({"local_path": "/x"})(scope, receive, send)
            return
        headers = [(b"x-target-sha256", target.encode()), (b"x-file-size", size.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    async with staging(worker, tmp_path) as stage:
        await stage.stager.ensure(stage.source(b"0123456789"), KEY)
    assert ranges == ["bytes 0-9/10"]


@asynccontextmanager
async def _hanging_up(serve_after: int, reply: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that drops the first `serve_after` connections unanswered, then sends `reply` to each."""
    heads: list[bytes] = []

    async def handle(stream: SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive()
            heads.append(data.split(b" ", 1)[0])
            if len(heads) > serve_after:
                await stream.send(reply)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield f"127.0.0.1:{port}", heads
        tasks.cancel_scope.cancel()


REPLY = b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 19\r\n\r\n{"local_path":"/x"}'


async def test_a_connection_that_breaks_is_tried_again_without_another_probe(tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_bytes(b"0123456789")
    async with _hanging_up(3, REPLY) as (address, heads):
        stager = HttpStager(address, generation="seed", waits_s=(0, 0, 0))
        assert await stager.ensure(source, KEY) == "/x"
        await stager.close()
    assert heads == [b"HEAD", b"PUT", b"PUT", b"PUT"]


async def test_it_gives_up_after_as_many_attempts_as_it_has_waits_and_one(
    tmp_path: Path, generation: Generation
) -> None:
    """S-1.5.3, S-1.5.5: four attempts of a seed frontend; no setting changes that here."""
    source = tmp_path / "x"
    source.write_bytes(b"0123456789")
    async with _hanging_up(100, REPLY) as (address, heads):
        stager = HttpStager(address, generation=generation, waits_s=(0, 0))
        with pytest.raises(TransferBroken):
            await stager.ensure(source, KEY)
        await stager.close()
    assert heads.count(b"PUT") == 3


async def test_a_worker_nobody_listens_for_is_told_apart_from_one_that_refuses(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    stager = HttpStager(f"127.0.0.1:{port}", waits_s=())
    with pytest.raises(TransferBroken):
        await stager.alloc_temp()
    await stager.close()


Use = Callable[[HttpStager, Path], Awaitable[object]]


async def _ensure(stager: HttpStager, source: Path) -> None:
    await stager.ensure(source, "models/m1/w.bin")


async def _ensure_qwen(stager: HttpStager, source: Path) -> None:
    await stager.ensure(source, "models/qwen3-0.6b/qwen.gguf")


async def _alloc_temp(stager: HttpStager, source: Path) -> None:
    assert await stager.alloc_temp() == "/staging/localai-output-1234567890.tmp"


async def _list_dir(stager: HttpStager, source: Path) -> None:
    assert await stager.list_dir("models/exported") == ("config.json", "shards/model-00001.safetensors")


@pytest.mark.parametrize(
    ("names", "generation", "content", "use"),
    [
        (["seed-08-file-head-missing", "seed-09-file-put"], "seed", b"hello distributed world", _ensure_qwen),
        (["seed-10-file-head-present"], "seed", b"hello distributed world", _ensure_qwen),
        (
            ["newer-17-file-head-partial", "newer-17-file-head-partial", "newer-18-file-put-range-resume"],
            "newer",
            b"AAAAABBBBB",
            _ensure,
        ),
        (["seed-12-file-temp"], "seed", b"", _alloc_temp),
        (["seed-13-files-list"], "seed", b"", _list_dir),
    ],
)
async def test_requests_are_sent_as_recorded(
    names: list[str], generation: Generation, content: bytes, use: Use, tmp_path: Path
) -> None:
    exchanges = [golden_http(name) for name in names]
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        exchange = exchanges[len(sent)]
        sent.append(request)
        body = {"json": exchange.answer} if isinstance(exchange.answer, dict) else {"text": exchange.answer}
        return httpx.Response(exchange.status, headers=dict(exchange.answer_headers), **body)

    source = tmp_path / "source"
    source.write_bytes(content)
    stager = HttpStager("w:50050", TOKEN, generation, (), httpx.MockTransport(answer))
    await use(stager, source)
    await stager.close()
    framing = {"host", "accept", "accept-encoding", "connection", "user-agent"}
    for exchange, request in zip(exchanges, sent, strict=True):
        assert (request.method, request.url.raw_path.decode()) == (exchange.method, exchange.path)
        assert request.content == exchange.content
        headers = {key: value for key, value in request.headers.items() if key not in framing}
        headers.pop("content-length") if exchange.method == "POST" else None
        assert headers == {key.lower(): value for key, value in exchange.headers.items()}


async def test_a_whole_file_is_sent_with_its_range_and_hash_by_a_newer_frontend(tmp_path: Path) -> None:
    exchange = golden_http("newer-16-file-put-range-whole")
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(404) if request.method == "HEAD" else httpx.Response(200, json=exchange.answer)

    source = tmp_path / "source"
    source.write_bytes(exchange.content)
    stager = HttpStager("w:50050", TOKEN, "newer", (), httpx.MockTransport(answer))
    assert await stager.ensure(source, "models/m1/w.bin") == "/models/m1/w.bin"
    await stager.close()
    assert {key.lower(): value for key, value in exchange.headers.items()}.items() <= dict(
        sent[-1].headers
    ).items()
