"""Large bodies, which go past the event loop: as if they did not, and with bounds on both sides."""

import os
from pathlib import Path

import pytest
from anyio import BrokenResourceError, EndOfStream, fail_after
from anyio.abc import SocketStream

from localai_worker.adapters.filesystem.hashing_writer import HashingWriter
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.filesystem.outgoing import LocalOutgoingFile
from localai_worker.adapters.http_server import connection as connections
from localai_worker.adapters.http_server import replies, request
from localai_worker.adapters.http_server.socket_loan import SocketSource
from localai_worker.domain.ports.filesystem import ByteSource, RootedPath

from .conftest import Node
from .test_connections import LIMIT_S, MIB, connection, head, read_to_the_end, read_until

SIZE = 3 * MIB


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the bodies that went by the socket."""
    sizes: list[int] = []
    made = SocketSource.__init__

    def note(source: SocketSource, descriptor: int, left_bytes: int) -> None:
        sizes.append(left_bytes)
        made(source, descriptor, left_bytes)

    monkeypatch.setattr(SocketSource, "__init__", note)
    return sizes


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def read_head(stream: SocketStream) -> tuple[bytes, bytes]:
    received = await read_until(stream, b"\r\n\r\n")
    first, _, rest = received.partition(b"\r\n\r\n")
    return first, rest


async def test_requests_follow_a_large_body_on_its_connection(disk: Node, lent: list[int]) -> None:
    contents = [os.urandom(SIZE), os.urandom(SIZE + 1)]
    async with connection(disk) as stream:
        for number, content in enumerate(contents):
            await stream.send(head("PUT", f"/v1/files/models/{number}", f"Content-Length: {len(content)}"))
            await stream.send(content)
            assert (await read_until(stream, b"local_path")).startswith(b"HTTP/1.1 200")
            await stream.send(head("HEAD", f"/v1/files/models/{number}"))
            assert (await read_head(stream))[0].startswith(b"HTTP/1.1 200")
    for number, content in enumerate(contents):
        assert await disk.content(disk.roots.models / str(number)) == content
    assert len(lent) == 2
    assert 0 < min(lent) <= max(lent) <= SIZE + 1


async def test_a_request_sent_along_with_a_large_body_is_answered_after_it(
    disk: Node, lent: list[int]
) -> None:
    content = os.urandom(SIZE)
    async with connection(disk) as stream:
        put = head("PUT", "/v1/files/models/x", f"Content-Length: {SIZE}")
        await stream.send(put + content + head("GET", "/healthz"))
        answers = await read_until(stream, b"\r\n\r\nok")
    assert answers.count(b"HTTP/1.1 200") == 2
    assert await disk.content(disk.roots.models / "x") == content
    assert len(lent) == 1


async def test_a_client_that_asks_first_sends_its_large_body_too(disk: Node, lent: list[int]) -> None:
    content = os.urandom(SIZE)
    async with connection(disk) as stream:
        lines = (f"Content-Length: {SIZE}", "Expect: 100-continue")
        await stream.send(head("PUT", "/v1/files/models/x", *lines))
        await read_until(stream, b"100 Continue\r\n\r\n")
        await stream.send(content)
        assert b"HTTP/1.1 200" in await read_until(stream, b"local_path")
    assert await disk.content(disk.roots.models / "x") == content
    assert len(lent) == 1


async def test_bytes_after_a_large_range_are_drained_and_the_answer_arrives(
    disk: Node, lent: list[int]
) -> None:
    content = os.urandom(SIZE)
    async with connection(disk) as stream:
        lines = (f"Content-Range: bytes 0-{MIB - 1}/{MIB}", f"Content-Length: {SIZE}")
        await stream.send(head("PUT", "/v1/files/models/x", *lines) + content)
        answer = await read_to_the_end(stream)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    assert await disk.content(disk.roots.models / "x") == content[:MIB]


async def test_a_disk_that_fills_up_in_the_middle_is_told_and_nothing_stays(
    disk: Node, lent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """H-12: the client has not sent everything when the disk is full."""
    await disk.request("PUT", "/v1/files/models/x", content=b"old")
    before = disk.every_file()
    write, written = os.write, [0]

    def run_full(descriptor: int, data: bytes) -> int:
        written[0] += len(data)
        if written[0] > SIZE and len(data) > 4096:
            raise OSError(28, os.strerror(28))
        return write(descriptor, data)

    async with connection(disk) as stream:
        await stream.send(head("PUT", "/v1/files/models/x", f"Content-Length: {4 * SIZE}"))
        monkeypatch.setattr(os, "write", run_full)
        for _ in range(4):
            await stream.send(b"n" * SIZE)
        answer = await read_to_the_end(stream)
    assert answer.startswith(b"HTTP/1.1 507")
    assert b"free some" in answer
    assert disk.every_file() == before
    assert await disk.content(disk.roots.models / "x") == b"old"


async def test_a_large_body_that_does_not_go_on_is_given_up(
    disk: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled: list[int] = []
    fill = HashingWriter.fill

    async def stall(writer: HashingWriter, source: ByteSource, *, most_bytes: int) -> int:
        monkeypatch.setattr(request, "BODY_IDLE_S", 0)  # from now on nothing is waited for
        filled.append(await fill(writer, source, most_bytes=most_bytes))
        return filled[-1]

    monkeypatch.setattr(HashingWriter, "fill", stall)
    async with connection(disk) as stream:
        await stream.send(head("PUT", "/v1/files/models/x", f"Content-Length: {SIZE}") + b"x" * MIB)
        answer = await read_to_the_end(stream)
    assert filled
    assert answer.startswith(b"HTTP/1.1 408")
    assert disk.every_file() == []


async def test_downloads_follow_each_other_on_one_connection(disk: Node) -> None:
    content = os.urandom(SIZE)
    await disk.request("PUT", "/v1/files/models/x", content=content)
    async with connection(disk) as stream:
        for start in (0, 0, MIB):
            await stream.send(head("GET", "/v1/files/models/x", f"Range: bytes={start}-"))
            _, body = await read_head(stream)
            while len(body) < SIZE - start:
                body += await stream.receive()
            assert body == content[start:]


async def test_a_client_that_takes_nothing_is_cut_off(disk: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "SEND_IDLE_S", 0.05)
    content = b"x" * (64 * MIB)  # more than both sockets hold
    await disk.request("PUT", "/v1/files/models/x", content=content)
    closed: list[LocalOutgoingFile] = []
    close = LocalOutgoingFile.close

    async def note(file: LocalOutgoingFile) -> None:
        await close(file)
        closed.append(file)

    monkeypatch.setattr(LocalOutgoingFile, "close", note)
    async with connection(disk) as stream:
        await stream.send(head("GET", "/v1/files/models/x"))
        with fail_after(LIMIT_S):
            while not closed:
                await disk.request("GET", "/healthz")
        try:
            await read_to_the_end(stream)
        except BrokenResourceError:
            return  # reset, as what waited was not worth waiting for


class Shrinking(LocalFileSystem):
    """Opens files for reading that lose their second half at that moment."""

    async def open_outgoing(self, place: RootedPath) -> LocalOutgoingFile | None:
        outgoing = await super().open_outgoing(place)
        os.truncate(place.path, SIZE // 2)
        return outgoing


async def test_a_file_that_shrinks_while_it_goes_out_breaks_the_transfer(disk: Node) -> None:
    """H-13"""
    await disk.request("PUT", "/v1/files/models/x", content=b"x" * SIZE)
    disk.files.filesystem = Shrinking()
    async with connection(disk) as stream:
        await stream.send(head("GET", "/v1/files/models/x"))
        answer = await read_to_the_end(stream)
    headers, _, body = answer.partition(b"\r\n\r\n")
    assert f"content-length: {SIZE}".encode() in headers
    assert len(body) == SIZE // 2


# The head of a request.


@pytest.mark.parametrize(
    "junk",
    [
        b"GET /" + b"k" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"x: " + b"v" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 40_000,
    ],
)
async def test_a_head_that_is_too_large_is_refused(disk: Node, junk: bytes) -> None:
    async with connection(disk) as stream:
        await stream.send(junk)
        await stream.send(b"\r\n\r\n")
        answer = await read_until(stream, b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431")


async def test_a_head_of_the_longest_key_is_fine(disk: Node) -> None:
    key = "/".join(["%C3%A9" * 100] * 18)  # with the directories above it, what a path may have
    refused = await disk.request("HEAD", f"/v1/files/models/{key}")
    assert refused.status_code == 404


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_does_not_come_is_given_up(
    disk: Node, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_LIMIT_S", 0.01)
    async with connection(disk) as stream:
        if sent:
            await stream.send(sent)
        answer = b""
        try:
            while True:
                answer += await stream.receive()
        except EndOfStream:
            pass
    assert answer.startswith(b"HTTP/1.1 408")


async def test_descriptors_are_given_back(disk: Node) -> None:
    """Lent sockets and files that went out."""
    await disk.request("PUT", "/v1/files/models/x", content=b"x" * SIZE)
    await disk.request("GET", "/v1/files/models/x")
    before = open_descriptors()
    for _ in range(5):
        await disk.request("PUT", "/v1/files/models/x", content=b"x" * SIZE)
        await disk.request("GET", "/v1/files/models/x")
    assert open_descriptors() == before
