"""What only a connection can show: clients that vanish, stall, or are refused while they still send."""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anyio import EndOfStream, Event, connect_tcp, fail_after, sleep
from anyio.abc import SocketStream
from starlette.datastructures import Headers

from localai_worker.adapters.filesystem.incoming import LocalIncomingFile
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.filesystem.outgoing import LocalOutgoingFile
from localai_worker.adapters.http_server import request
from localai_worker.adapters.http_server.request import RequestBody
from localai_worker.domain.errors import FileUnreadable
from localai_worker.domain.ports.filesystem import RootedPath

from .conftest import Node

MIB = 1024 * 1024
LIMIT_S = 20.0  # far more than anything here takes; a hang becomes a failure


@asynccontextmanager
async def connection(node: Node) -> AsyncIterator[SocketStream]:
    with fail_after(LIMIT_S):
        async with await connect_tcp("127.0.0.1", node.port) as stream:
            yield stream


def head(method: str, path: str, *headers: str, token: str = "s3cret") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: node", f"Authorization: Bearer {token}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def read_until(stream: SocketStream, mark: bytes) -> bytes:
    received = b""
    while mark not in received:
        received += await stream.receive()
    return received


async def read_to_the_end(stream: SocketStream) -> bytes:
    received = b""
    while True:
        try:
            received += await stream.receive()
        except EndOfStream:
            return received


REFUSED_EARLY = [
    ("wrong", "/v1/files/models/x", b"401 Unauthorized", b"unauthorized"),
    ("s3cret", "/v1/files/models/../x", b"400 Bad Request", b"is outside allowed directory"),
    ("s3cret", "/v1/files/", b"400 Bad Request", b"key is required"),
    ("s3cret", "/v1/files/big/x", b"413 ", b"this worker takes 1048576"),
    ("s3cret", "/v1/nowhere", b"404 Not Found", b"404 page not found"),
    ("s3cret", "/v1/files-list/x", b"405 Method Not Allowed", b"method not allowed"),
]


@pytest.mark.parametrize(("token", "path", "status", "text"), REFUSED_EARLY)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_that_sends_everything_before_it_reads_gets_the_refusal(
    disk: Node, token: str, path: str, status: bytes, text: bytes, chunked: bool
) -> None:
    """H-12: upstream resets the connection, and the client retries what is hopeless."""
    disk.files.max_upload_bytes = MIB
    size = 8 * MIB
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    async with connection(disk) as stream:
        await stream.send(head("PUT", path, length, token=token))
        for _ in range(size // 65536):
            piece = b"x" * 65536
            await stream.send(b"10000\r\n" + piece + b"\r\n" if chunked else piece)
        if chunked:
            await stream.send(b"0\r\n\r\n")
        answer = await read_to_the_end(stream)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer
    assert text in answer
    assert disk.every_file() == []


async def test_a_refusal_while_the_body_comes_is_answered_too(disk: Node) -> None:
    """H-12: the limit is found out in the middle of a chunked body."""
    disk.files.max_upload_bytes = MIB
    async with connection(disk) as stream:
        await stream.send(head("PUT", "/v1/files/models/x", "Transfer-Encoding: chunked"))
        for _ in range(64):
            await stream.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        answer = await read_until(stream, b"this worker takes")
    assert answer.startswith(b"HTTP/1.1 413")


async def test_an_upload_that_cannot_fit_is_refused_before_its_body(disk: Node) -> None:
    """H-11: no machine has that much room."""
    disk.files.max_upload_bytes = None
    async with connection(disk) as stream:
        await stream.send(head("PUT", "/v1/files/models/x", f"Content-Length: {1 << 62}"))
        answer = await read_until(stream, b"free some")
    assert answer.startswith(b"HTTP/1.1 507")


async def test_a_client_that_asks_first_is_told_no_without_sending(disk: Node) -> None:
    async with connection(disk) as stream:
        expect = ("Content-Length: 1000000", "Expect: 100-continue")
        await stream.send(head("PUT", "/v1/files/models/x", *expect, token="wrong"))
        answer = await read_to_the_end(stream)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"100 Continue" not in answer


async def test_a_client_that_asks_first_is_told_yes(disk: Node) -> None:
    async with connection(disk) as stream:
        await stream.send(head("PUT", "/v1/files/models/x", "Content-Length: 3", "Expect: 100-continue"))
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 100 Continue")
        await stream.send(b"abc")
        assert (await read_until(stream, b"local_path")).startswith(b"HTTP/1.1 200")


async def test_one_connection_serves_one_request_after_another(disk: Node) -> None:
    async with connection(disk) as stream:
        for number in range(3):
            await stream.send(head("PUT", f"/v1/files/models/{number}", "Content-Length: 3") + b"abc")
            assert (await read_until(stream, b"local_path")).startswith(b"HTTP/1.1 200")
            await stream.send(head("HEAD", "/v1/files/models/absent"))
            assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    "line",
    [
        b"GET /v1/files/models/\xff HTTP/1.1",
        b"GET ?x HTTP/1.1",
        b"GET x HTTP/1.1",
        b"GET  HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PUT /v1/files/models/x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2",
        b"PUT /v1/files/models/x HTTP/1.1\r\nContent-Length: -1",
        b"PUT /v1/files/models/x HTTP/1.1\r\nContent-Length: 99999999999999999999999",
    ],
)
async def test_what_is_no_http_is_refused_and_the_server_goes_on(disk: Node, line: bytes) -> None:
    async with connection(disk) as stream:
        await stream.send(line + b"\r\nHost: node\r\nAuthorization: Bearer s3cret\r\n\r\n")
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 400")
    assert (await disk.request("GET", "/healthz")).status_code == 200
    assert disk.every_file() == []


class Watched(LocalIncomingFile):
    """Tells when it was discarded."""

    def __init__(self, place: RootedPath, mode: int) -> None:
        super().__init__(place, mode)
        self.discarded = Event()

    async def discard(self) -> None:
        await super().discard()
        self.discarded.set()


class WatchedFileSystem(LocalFileSystem):
    """Tells of each file that starts to come in."""

    def __init__(self) -> None:
        self.opened = Event()
        self.incoming: Watched | None = None

    async def open_incoming(self, place: RootedPath, *, mode: int = 0o644) -> Watched:
        self.incoming = Watched(place, mode)
        self.opened.set()
        return self.incoming


@pytest.mark.parametrize("header", ["Content-Length: 5000000", "Transfer-Encoding: chunked"])
async def test_a_client_that_vanishes_leaves_the_old_file_and_no_temporary(disk: Node, header: str) -> None:
    """H-1, S-K12"""
    await disk.request("PUT", "/v1/files/models/x", content=b"old")
    before = disk.every_file()
    watched = disk.files.filesystem = WatchedFileSystem()
    async with connection(disk) as stream:
        await stream.send(head("PUT", "/v1/files/models/x", header) + b"200000\r\n" + b"n" * (2 * MIB))
        await watched.opened.wait()
    with fail_after(LIMIT_S):
        assert watched.incoming is not None
        await watched.incoming.discarded.wait()
    assert disk.every_file() == before
    assert await disk.content(disk.roots.models / "x") == b"old"


async def test_a_client_that_vanishes_can_go_on_where_it_was(disk: Node) -> None:
    """H-c22216129: each broken connection leaves what it brought; the last one ends with the hash."""
    content = os.urandom(5 * MIB)
    sha256 = hashlib.sha256(content).hexdigest()
    path = "/v1/files/models/m/x"
    offset = 0
    for _ in range(3):
        span = f"Content-Range: bytes {offset}-{len(content) - 1}/{len(content)}"
        length = f"Content-Length: {len(content) - offset}"
        async with connection(disk) as stream:
            await stream.send(head("PUT", path, span, length, f"X-Content-SHA256: {sha256}"))
            await stream.send(content[offset : offset + MIB + 7])
        with fail_after(LIMIT_S):
            while (held := await size_held(disk, path)) < offset + MIB + 7:
                await sleep(0.005)
        assert held == offset + MIB + 7
        offset = held
    rest = {"content-range": f"bytes {offset}-{len(content) - 1}/{len(content)}", "x-content-sha256": sha256}
    with fail_after(LIMIT_S):  # the last broken one may not be let go yet: newer clients try 416 again
        while (stored := await disk.request("PUT", path, headers=rest, content=content[offset:])).is_error:
            assert stored.status_code == 416
            await sleep(0.005)
    assert stored.status_code == 200
    assert await disk.content(disk.roots.models / "m/x") == content
    assert [file.name for file in disk.every_file()] == ["x", "x.sha256"]


async def size_held(node: Node, path: str) -> int:
    probed = await node.request("HEAD", path)
    return int(probed.headers["x-file-size"]) if "x-target-sha256" in probed.headers else 0


class FailingOutgoing(LocalOutgoingFile):
    """Breaks off after its first chunk, as a dying disk does."""

    @property
    def descriptor(self) -> None:
        return None  # chunk by chunk, please

    async def chunks(self, start: int = 0, count: int | None = None) -> AsyncIterator[bytes]:
        async for chunk in super().chunks(start, count):
            yield chunk
            raise FileUnreadable(self._path, "Input/output error")


class FailingFileSystem(LocalFileSystem):
    async def open_outgoing(self, place: RootedPath) -> LocalOutgoingFile | None:
        outgoing = await super().open_outgoing(place)
        assert outgoing is not None
        assert outgoing._file is not None
        return FailingOutgoing(place.path, outgoing._file)


async def test_a_read_that_fails_half_way_breaks_the_transfer(disk: Node) -> None:
    """H-13: upstream ends the answer normally, and the short file passes for the whole."""
    await disk.request("PUT", "/v1/files/models/x", content=b"x" * (2 * MIB))
    disk.files.filesystem = FailingFileSystem()
    async with connection(disk) as stream:
        await stream.send(head("GET", "/v1/files/models/x"))
        answer = await read_to_the_end(stream)
    headers, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-length: 2097152" in headers
    assert len(body) == MIB


async def test_a_client_that_stops_reading_lets_the_file_go(disk: Node) -> None:
    await disk.request("PUT", "/v1/files/models/x", content=b"x" * (30 * MIB))
    closed = Event()

    class Closing(LocalOutgoingFile):
        async def close(self) -> None:
            await super().close()
            closed.set()

    class ClosingFileSystem(LocalFileSystem):
        async def open_outgoing(self, place: RootedPath) -> LocalOutgoingFile | None:
            outgoing = await super().open_outgoing(place)
            assert outgoing is not None
            assert outgoing._file is not None
            return Closing(place.path, outgoing._file)

    disk.files.filesystem = ClosingFileSystem()
    async with connection(disk) as stream:
        await stream.send(head("GET", "/v1/files/models/x"))
        await stream.receive()
    with fail_after(LIMIT_S):
        await closed.wait()


# Bounds, without waiting for them.


class Stalled:
    """A connection on which nothing more comes."""

    async def __call__(self) -> Any:
        await Event().wait()


async def test_a_body_that_does_not_go_on_is_given_up(disk: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "BODY_IDLE_S", 0)
    async with connection(disk) as stream:
        await stream.send(head("PUT", "/v1/files/models/x", "Content-Length: 10"))
        answer = await read_until(stream, b"no data for 0 s")
    assert answer.startswith(b"HTTP/1.1 408")
    assert disk.every_file() == []


async def test_draining_ends_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """H-12: within bounds."""
    monkeypatch.setattr(request, "DRAIN_LIMIT_S", 0)
    body = RequestBody(Headers({"content-length": "10"}), Stalled())
    await body.drain()
    assert not body.ended


async def test_draining_ends_after_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """H-12: within bounds."""
    monkeypatch.setattr(request, "DRAIN_LIMIT_BYTES", 1000)
    received = 0

    async def receive() -> Any:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    body = RequestBody(Headers({"transfer-encoding": "chunked"}), receive)
    await body.drain()
    assert received == 10
    assert not body.ended


async def test_draining_ends_with_the_connection() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    body = RequestBody(Headers({"content-length": "10"}), receive)
    await body.drain()
    assert body.ended
