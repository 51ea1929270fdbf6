"""The exchanges recorded from the protocol sheets, replayed in the order a frontend makes them."""

import json
import posixpath
from pathlib import Path
from typing import Any

import httpx

from localai_worker.domain.readiness import BUS_DOWN, ReadinessReport

from .conftest import Node

GOLDEN = Path(__file__).parents[2] / "golden" / "http"


def golden(name: str) -> dict[str, Any]:
    exchange: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return exchange


async def replay(node: Node, name: str) -> httpx.Response:
    """Send the golden request; check status and headers, with this node's own directories in them."""
    exchange = golden(name)
    request, expected = exchange["request"], exchange["response"]
    content = request["body"].encode() if request["body"] is not None else None
    response = await node.request(
        request["method"], request["path"], headers=request["headers"], content=content
    )
    assert response.status_code == expected["status"]
    for header, value in expected["headers"].items():
        assert response.headers[header] == here(node, value)
    return response


def here(node: Node, text: str) -> str:
    return text.replace("/models/", f"{node.roots.models}/").replace("/staging/", f"{node.roots.staging}/")


def expected_body(name: str) -> Any:
    return golden(name)["response"]["body"]


async def test_a_model_is_asked_for_sent_and_asked_for_again(node: Node) -> None:
    missing = await replay(node, "seed-08-file-head-missing")
    assert missing.content == b""

    stored = await replay(node, "seed-09-file-put")
    assert stored.json() == {"local_path": here(node, expected_body("seed-09-file-put")["local_path"])}
    assert stored.text.endswith("\n")
    assert await node.content(node.roots.models / "qwen3-0.6b/qwen.gguf") == b"hello distributed world"

    present = await replay(node, "seed-10-file-head-present")
    assert present.content == b""
    # The newer additions of the recording's note; no content type, and never a claim to hold a part.
    assert present.headers["content-length"] == "23"
    assert "content-type" not in present.headers
    assert "x-target-sha256" not in present.headers

    sidecar = await node.content(node.roots.models / "qwen3-0.6b/qwen.gguf.sha256")
    assert sidecar.decode() == present.headers["x-content-sha256"]


async def test_an_encoded_way_out_is_refused(node: Node) -> None:
    before = node.every_file()
    refused = await replay(node, "seed-11-file-put-traversal")
    outside = posixpath.normpath(f"{node.roots.models}/../../etc/cron.d/x")
    assert refused.text == expected_body("seed-11-file-put-traversal").replace("/etc/cron.d/x", outside)
    assert node.every_file() == before


async def test_a_temporary_is_made_flat_in_staging_and_fetched_by_its_name(node: Node) -> None:
    made = await replay(node, "seed-12-file-temp")
    path = Path(made.json()["local_path"])
    assert path.parent == node.roots.staging
    assert path.name.startswith("localai-output-")
    assert path.name.removeprefix("localai-output-").removesuffix(".tmp").isdigit()
    fetched = await node.request("GET", f"/v1/files/{path.name}")
    assert (fetched.status_code, fetched.content) == (200, b"")


async def test_an_export_is_listed(node: Node) -> None:
    """H-15"""
    for relative in ("shards/model-00001.safetensors", "config.json"):
        stored = await node.request("PUT", f"/v1/files/models/exported/{relative}", content=b"x")
        assert stored.status_code == 200
    listed = await replay(node, "seed-13-files-list")
    assert listed.json() == expected_body("seed-13-files-list")


async def test_a_newer_frontend_sends_a_whole_file_as_a_range(node: Node) -> None:
    stored = await replay(node, "newer-16-file-put-range-whole")
    assert stored.json() == {"local_path": here(node, "/models/m1/w.bin")}
    assert await node.content(node.roots.models / "m1/w.bin") == b"AAAAABBBBB"
    again = await replay(node, "newer-16-file-put-range-whole")
    assert again.json() == stored.json()


async def test_a_newer_frontend_resumes_where_the_worker_is(node: Node) -> None:
    """H-c22216129"""
    request = golden("newer-16-file-put-range-whole")["request"]
    half = {**request["headers"], "Content-Range": "bytes 0-4/10", "Content-Length": "5"}
    first = await node.request("PUT", request["path"], headers=half, content=b"AAAAA")
    assert first.status_code == 308
    assert first.headers["range"] == "bytes=0-4"
    assert first.headers["x-file-size"] == "5"
    assert first.content == b""
    assert "location" not in first.headers

    partial = await replay(node, "newer-17-file-head-partial")
    assert "x-content-sha256" not in partial.headers

    refused = await replay(node, "newer-19-file-put-range-bad-offset")
    assert refused.text == expected_body("newer-19-file-put-range-bad-offset")
    await replay(node, "newer-17-file-head-partial")

    stored = await replay(node, "newer-18-file-put-range-resume")
    assert stored.json() == {"local_path": here(node, "/models/m1/w.bin")}
    assert await node.content(node.roots.models / "m1/w.bin") == b"AAAAABBBBB"
    names = [path.name for path in node.every_file()]
    assert names == ["w.bin", "w.bin.sha256"]


async def test_a_resumed_upload_of_another_file_is_a_conflict_and_the_part_is_dropped(node: Node) -> None:
    """The note of recording 18."""
    resume = golden("newer-18-file-put-range-resume")["request"]
    half = {**resume["headers"], "Content-Range": "bytes 0-4/10"}
    await node.request("PUT", resume["path"], headers=half, content=b"AAAAA")
    other = {**resume["headers"], "X-Content-SHA256": "0" * 64}
    refused = await node.request("PUT", resume["path"], headers=other, content=b"BBBBB")
    assert refused.status_code == 409
    assert refused.text.startswith("X-Content-SHA256 mismatch with in-progress upload (was 59158e9f")
    assert node.every_file() == []

    await node.request("PUT", resume["path"], headers=half, content=b"AAAAA")
    refused = await node.request("PUT", resume["path"], headers=resume["headers"], content=b"XXXXX")
    assert refused.status_code == 400
    assert refused.text.startswith("sha256 mismatch: expected 59158e9f")
    assert node.every_file() == []


async def test_readiness_follows_the_bus_and_needs_no_token(node: Node) -> None:
    node.token = "wrong"
    node.readiness.report = ReadinessReport(BUS_DOWN)
    down = await replay(node, "newer-20-readyz-nats-down")
    assert down.text == expected_body("newer-20-readyz-nats-down")
    alive = await node.request("GET", "/healthz")
    assert (alive.status_code, alive.text) == (200, "ok")
    node.readiness.report = ReadinessReport()
    up = await node.request("GET", "/readyz")
    assert (up.status_code, up.text) == (200, "ok")
    for obstacle, status in ((BUS_DOWN, 503), ("", 200)):
        node.readiness.report = ReadinessReport(obstacle, ("waiting for approval", "disk full"))
        told = await node.request("GET", "/readyz")
        first = "not ready: " + BUS_DOWN if obstacle else "ok"
        assert told.status_code == status
        assert told.text == f"{first}\nwaiting for approval\ndisk full"
    assert up.headers["content-type"] == "text/plain; charset=utf-8"
    for path in ("/healthz", "/readyz"):
        assert (await node.request("HEAD", path)).status_code == 200
        refused = await node.request("POST", path)
        assert (refused.status_code, refused.text) == (405, "method not allowed\n")
