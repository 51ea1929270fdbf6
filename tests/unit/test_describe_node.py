"""What a node says to its operator, from the whole worker in memory, and how the command line shows it."""

import io
import json
from typing import Any

import httpx
import pytest
from rich.console import Console

from localai_worker.app.status_report import NoStatus, ask_status, write_status
from localai_worker.app.testing import (
    VIRTUAL_TIME,
    AnyioBackend,
    FakeProgram,
    MemoryNode,
    memory_node,
    memory_settings,
)
from localai_worker.domain.ports.hardware import Gpu, Hardware, Memory

GIB = 1024**3
TOKEN = {"Authorization": "Bearer s3cret"}


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


async def ask(node: MemoryNode, headers: dict[str, str] | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(node.container.file_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        return await client.get("/v1/status", headers=TOKEN if headers is None else headers)


async def told(node: MemoryNode) -> dict[str, Any]:
    answer = await ask(node)
    assert answer.status_code == 200
    fields: dict[str, Any] = answer.json()
    return fields


async def test_a_node_tells_what_runs_and_what_it_holds() -> None:
    async with memory_node() as node:
        node.offer("whisper")
        await node.install("whisper", "large")
        (process,) = node.machine.running
        node.parts.hardware().reading = Hardware(
            gpus=(Gpu(vendor="nvidia", name="L4", total_bytes=24 * GIB, free_bytes=20 * GIB),),
            ram=Memory(64 * GIB, 60 * GIB),
        )
        node.parts.hardware().vram = {process.pid: 3 * GIB, 77: GIB}
        fields = await told(node)
    assert fields["node"] == {"id": node.worker.enrolment.node_id, "name": "node-1", "status": "healthy"}
    assert fields["ready"]
    (row,) = fields["processes"]
    assert (row["replica"], row["backend"], row["state"]) == ("large#0", "whisper", "ready")
    assert (row["pid"], row["vram_bytes"]) == (process.pid, 3 * GIB)
    assert fields["gpus"] == [
        {"vendor": "nvidia", "name": "L4", "total_bytes": 24 * GIB, "free_bytes": 20 * GIB}
    ]
    assert fields["deaths"] == []


async def test_memory_nobody_tells_of_is_left_out() -> None:
    async with memory_node() as node:
        node.offer("whisper")
        await node.install("whisper", "large")
        (row,) = (await told(node))["processes"]
    assert "vram_bytes" not in row


async def test_a_death_is_told_with_its_last_words() -> None:
    async with memory_node() as node:
        node.offer("frail", FakeProgram(listens_after_s=60, exits_after_s=1, exit_code=3, stderr="no GPU\n"))
        assert not (await node.install("frail", "m")).success
        (death,) = (await told(node))["deaths"]
    assert (death["replica"], death["last_line"]) == ("m#0", "no GPU")
    assert death["verdict"].startswith("exit code 3")


async def test_the_status_is_behind_the_token() -> None:
    async with memory_node() as node:
        assert (await ask(node, {})).status_code == 401


FULL = {
    "node": {"id": "n1", "name": "node-1", "status": "healthy"},
    "ready": True,
    "worries": ["disk below the floor"],
    "processes": [
        {"replica": "m#0", "backend": "b", "state": "ready", "port": 50052, "pid": 7, "up_s": 65.0},
        {"replica": "n#0", "backend": "b", "state": "starting", "port": 50053, "vram_bytes": 2 * GIB},
    ],
    "deaths": [{"replica": "x#0", "at": "2026-01-01", "verdict": "exit code 3", "last_line": "[red]no"}],
    "gpus": [{"vendor": "amd", "name": "MI300X", "total_bytes": 192 * GIB}],
    "ram": {"total_bytes": 8 * GIB, "available_bytes": GIB},
}


def test_people_see_tables() -> None:
    out = io.StringIO()
    write_status(FULL, Console(file=out, width=120))
    text = out.getvalue()
    for part in ("! disk below", "amd: MI300X, ? free of 192.0 GiB", "m#0", "2.0 GiB", "[red]no", "RAM: 1.0"):
        assert part in text


def test_nothing_running_is_said() -> None:
    out = io.StringIO()
    write_status({**FULL, "processes": []}, Console(file=out, width=120))
    assert "no processes" in out.getvalue()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, b"", "LOCALAI_REGISTRATION_TOKEN"),
        (404, b"404 page not found", "is no status"),
        (200, b"[]", "is no status"),
        (200, json.dumps(FULL).encode(), ""),
    ],
)
def test_answers_that_are_no_status_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, says: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer s3cret"
        assert request.url.host == "127.0.0.1"
        return httpx.Response(status, content=body)

    made = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **_: made(transport=httpx.MockTransport(answer)))
    if not says:
        assert ask_status(memory_settings())["node"]["name"] == "node-1"
        return
    with pytest.raises(NoStatus, match=says):
        ask_status(memory_settings())


def test_nobody_there_is_told_with_the_address() -> None:
    settings = memory_settings(LOCALAI_HTTP_ADDR="127.0.0.1:1")
    with pytest.raises(NoStatus, match=r"no worker answers at http://127\.0\.0\.1:1/v1/status"):
        ask_status(settings)
