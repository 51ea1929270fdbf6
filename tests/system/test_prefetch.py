"""A worker process that is killed while it prefetches a whole repository, and the one that goes on."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from localai_worker.app.simulator.local_cluster import LocalCluster
from tests.snapshots import HubOnWeb
from tests.system.nodes import Node, until
from tests.web import Page, web_server

CAME = 3 << 20
WEIGHTS = bytes(range(256)) * (5 << 12)  # 5 MiB
FILES = {"config.json": b'{"layers": 2}', "model.safetensors": WEIGHTS}


@pytest.fixture
def hub() -> Iterator[HubOnWeb]:
    with web_server() as web, web_server() as store:
        yield HubOnWeb(web, store)


async def test_a_worker_that_was_killed_goes_on_at_the_byte(cluster: LocalCluster, hub: HubOnWeb) -> None:
    """M-5.3, S-W34: and the frontend need not send what came."""
    hub.publish("owner/repo", FILES, large=["model.safetensors"])
    entry = {"name": "m", "overrides": {"backend": "vllm", "parameters": {"model": "owner/repo"}}}
    hub.web.pages["/models.yaml"] = Page(json.dumps([entry]).encode())
    ((path, whole),) = hub.store.pages.items()
    held = threading.Event()

    def some() -> Iterator[bytes]:
        yield WEIGHTS[:CAME]
        held.wait(60)

    size = {"Content-Length": str(len(WEIGHTS))}
    hub.store.pages[path] = replace(whole, headers=size, chunks=some())
    environment = {
        "LOCALAI_PREFETCH_MODELS": "m",
        "LOCALAI_GALLERIES": json.dumps([{"name": "site", "url": hub.web.url("/models.yaml")}]),
        "HF_ENDPOINT": hub.endpoint,
    }
    worker = await cluster.start_worker("prefetching", environment)
    artifacts = worker.directory / "models/.artifacts"

    def part() -> int:
        """How much of the weights is on disk; the worker writes 1 MiB and more at a time."""
        return sum(file.stat().st_size for file in artifacts.rglob(f"*-{len(WEIGHTS)}"))

    try:
        await until(lambda: part() > CAME - (2 << 20))
        worker.stopping = True
        worker.process.kill()
        await worker.process.wait()
    finally:
        held.set()
    came = part()
    hub.store.pages[path] = whole
    again = await cluster.restart_worker(worker)
    node = Node(cluster, again, await cluster.frontend.wait_for_node("prefetching"))
    await until(lambda: node.said("worker ready"))
    assert [visit.headers.get("range") for visit in hub.store.visits] == [None, f"bytes={came}-"]
    assert list((artifacts / ".partial").iterdir()) == []
    (snapshot,) = (artifacts / "huggingface").iterdir()
    assert (snapshot / "snapshot/model.safetensors").read_bytes() == WEIGHTS
    key = f"models/org/m/.artifacts/huggingface/{snapshot.name}/snapshot/model.safetensors"
    async with httpx.AsyncClient(trust_env=False) as client:
        found = await client.head(
            f"http://{again.http_address}/v1/files/{key}",
            headers={"Authorization": f"Bearer {cluster.token}"},
        )
    assert found.headers["X-Content-SHA256"] == hashlib.sha256(WEIGHTS).hexdigest()
