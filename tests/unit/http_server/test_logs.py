"""The log routes: REST in memory and over a socket, live views over a socket."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from anyio import fail_after
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from localai_worker.adapters.http_server import log_endpoints
from localai_worker.domain.backend import ReplicaKey
from localai_worker.domain.messages.log_lines import LogLine

from .conftest import Node
from .test_connections import LIMIT_S
from .test_golden import golden, replay

NOON = datetime(2026, 4, 21, 12, 0, 0, 500, tzinfo=UTC)


def say(node: Node, model: str, text: str, replica: int = 0) -> None:
    node.logs.append(ReplicaKey(model, replica), "stderr", text, NOON)


async def texts(node: Node, raw_id: str) -> list[str]:
    told = await node.request("GET", f"/v1/backend-logs/{raw_id}")
    assert told.status_code == 200
    assert told.headers["content-type"] == "application/json"
    return [line["text"] for line in told.json()]


async def test_lines_are_told_as_recorded(node: Node) -> None:
    recorded = golden("seed-14-backend-logs-lines")["response"]["body"]
    line = LogLine.from_wire(json.dumps(recorded[0]).encode())
    node.logs.append(ReplicaKey("my-org/model:latest", 0), line.stream, line.text, line.at)
    told = await replay(node, "seed-14-backend-logs-lines")
    assert [(each["stream"], each["text"]) for each in told.json()] == [("stderr", recorded[0]["text"])]
    assert told.json()[0]["timestamp"].startswith("2026-04-21T08:05:01")
    assert told.json()[0]["timestamp"].endswith("+02:00")
    assert told.text.endswith("]\n")


async def test_models_are_listed_once_and_sorted_and_replicas_merged(node: Node) -> None:
    listed = await node.request("GET", "/v1/backend-logs")
    assert (listed.status_code, listed.text) == (200, "[]\n")
    say(node, "b", "1")
    say(node, "a", "2", replica=1)
    say(node, "a", "3")
    assert (await node.request("GET", "/v1/backend-logs")).json() == ["a", "b"]
    assert sorted(await texts(node, "a")) == ["2", "3"]
    assert await texts(node, "a%231") == ["2"]
    assert await texts(node, "unknown") == []


@pytest.mark.parametrize(
    ("model", "raw_id"),
    [
        ("my-org/model:latest", "my-org%252Fmodel%253Alatest"),
        ("my-org/model:latest", "my-org%2Fmodel%3Alatest"),
        ("my-org/model:latest", "my-org/model:latest"),
        ("a b#c", "a%20b%23c"),
        ("100%", "100%25"),
        ("100%", "100%2525"),
        ("a%20b", "a%2520b"),
        ("é", "%C3%A9"),
        ("é", "%25C3%25A9"),
        ("ws", "ws"),
    ],
)
async def test_an_id_is_found_however_often_it_was_escaped(node: Node, model: str, raw_id: str) -> None:
    """H-26: the web UI escapes twice; an id with a percent sign of its own breaks upstream."""
    say(node, model, "found")
    assert await texts(node, raw_id) == ["found"]


async def test_a_live_view_is_not_for_plain_requests(node: Node) -> None:
    refused = await node.request("GET", "/v1/backend-logs/m/ws")
    assert refused.status_code == 400
    assert "WebSocket" in refused.text


# live views


@asynccontextmanager
async def view(node: Node, raw_id: str, **options: Any) -> AsyncIterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {options.pop('token', node.token)}"}
    url = f"ws://127.0.0.1:{node.port}/v1/backend-logs/{raw_id}"
    with fail_after(LIMIT_S):
        async with connect(url, additional_headers=headers, proxy=None, **options) as socket:
            yield socket


async def frame(socket: ClientConnection) -> dict[str, Any]:
    text = await socket.recv()
    assert isinstance(text, str)
    read: dict[str, Any] = json.loads(text)
    return read


async def end_of(socket: ClientConnection) -> int:
    """The code with which the server ends the view."""
    try:
        while True:
            await frame(socket)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 0


async def test_a_live_view_begins_with_what_was_printed_and_goes_on(disk: Node) -> None:
    """H-26: no line is lost between the two."""
    say(disk, "org/m", "before")
    async with view(disk, "org%252Fm/ws") as socket:
        first = await frame(socket)
        assert first["type"] == "initial"
        assert [line["text"] for line in first["lines"]] == ["before"]
        assert first["lines"][0].keys() == {"timestamp", "stream", "text"}
        for number in range(3):
            say(disk, "org/m", f"line {number}")
        say(disk, "other", "not for you")
        say(disk, "org/m", "last", replica=1)
        for text in ("line 0", "line 1", "line 2", "last"):
            told = await frame(socket)
            assert told["type"] == "line"
            assert told["line"]["text"] == text


async def test_a_view_on_what_has_not_printed_yet_gets_its_first_line(disk: Node) -> None:
    """H-27: newer never attaches the replica that comes later."""
    async with view(disk, "m/ws") as socket:
        assert await frame(socket) == {"type": "initial", "lines": []}
        say(disk, "m", "first")
        assert (await frame(socket))["line"]["text"] == "first"


async def test_many_views_get_every_line_and_leave_nothing_behind(disk: Node) -> None:
    async with view(disk, "m/ws") as one, view(disk, "m/ws") as two, view(disk, "m%230/ws") as three:
        for socket in (one, two, three):
            assert (await frame(socket))["type"] == "initial"
        say(disk, "m", "to all")
        for socket in (one, two, three):
            assert (await frame(socket))["line"]["text"] == "to all"
        await one.send("ignored")
    with fail_after(LIMIT_S):
        while disk.logs._readers:
            await disk.request("GET", "/healthz")


async def test_a_view_that_reads_too_slowly_is_dropped_and_the_others_go_on(disk: Node) -> None:
    disk.logs.reader_lines = 5
    async with view(disk, "m/ws") as slow, view(disk, "n/ws") as other:
        assert (await frame(slow))["type"] == "initial"
        assert (await frame(other))["type"] == "initial"
        for number in range(10):  # at once: no view can have sent any of them yet
            say(disk, "m", f"{number}")
        say(disk, "n", "still here")
        assert (await frame(other))["line"]["text"] == "still here"
        assert await end_of(slow) == log_endpoints.TOO_SLOW


@pytest.mark.parametrize(
    ("raw_id", "options", "status"),
    [
        ("m/ws", {"token": "wrong"}, 401),
        ("m/ws", {"token": ""}, 401),
        ("/ws", {}, 400),
        ("%zz/ws", {}, 400),
        ("m", {}, 404),
        ("m/wsx", {}, 404),
        ("m/ws", {"origin": "http://elsewhere.example"}, 403),
        ("m/ws", {"origin": "null"}, 403),
    ],
)
async def test_who_may_not_look_is_refused_before_the_upgrade(
    disk: Node, raw_id: str, options: dict[str, Any], status: int
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with view(disk, raw_id, **options):
            pass
    assert caught.value.response.status_code == status


async def test_the_page_of_this_very_host_may_look(disk: Node) -> None:
    async with view(disk, "m/ws", origin=f"http://127.0.0.1:{disk.port}") as socket:
        assert (await frame(socket))["type"] == "initial"


async def test_large_frames_from_a_viewer_end_the_view(disk: Node) -> None:
    async with view(disk, "m/ws") as socket:
        await frame(socket)
        await socket.send("x" * 5000)
        assert await end_of(socket) == 1009


def test_the_web_socket_library_is_loaded_by_the_first_view() -> None:
    """Few nodes are ever looked at; the start must not pay for it."""
    import subprocess
    import sys

    code = "import sys, localai_worker.adapters.http_server.application; print('websockets' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"
