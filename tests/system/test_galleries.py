"""A worker process, real NATS, and galleries on a web server: what it prefetches, installs and tells."""

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from localai_worker.app.simulator.local_cluster import LocalCluster
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.messages.backend_progress import BackendInstallProgress
from tests import archives
from tests.system import tiny_backends
from tests.system.nodes import Node, start_node
from tests.web import Page, Web, web_server

WEIGHTS = b"weights " * 10_000
MODEL = f"""\
- name: tiny
  overrides: {{backend: tiny-engine, parameters: {{model: tiny.gguf}}}}
  files:
    - filename: tiny.gguf
      sha256: {hashlib.sha256(WEIGHTS).hexdigest()}
      uri: @WEB@/tiny.gguf
"""
ENGINES = """\
- &engine
  name: engine
  alias: engine
  capabilities: {default: cpu-engine, nvidia: cuda-engine}
- !!merge <<: *engine
  name: cpu-engine
  version: 1.10
  uri: ocifile://@IMAGE@
"""


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


@pytest.fixture(scope="module")
async def node(cluster: LocalCluster, web: Web) -> Node:
    """A worker that prefetches a model and takes its backends from the web server."""
    web.pages["/models.yaml"] = Page(MODEL.replace("@WEB@", web.url("")).encode())
    web.pages["/tiny.gguf"] = Page(WEIGHTS)
    environment = {
        "LOCALAI_PREFETCH_MODELS": "tiny, unheard-of",
        "LOCALAI_GALLERIES": f'[{{"name":"models","url":"{web.url("/models.yaml")}"}}]',
        "LOCALAI_FORCE_META_BACKEND_CAPABILITY": "default",
    }
    return await start_node(cluster, "galleries", environment)


async def test_models_are_there_when_the_worker_is_ready(node: Node) -> None:
    """S-W34."""
    models = node.backends.parent / "models"
    assert (models / "tiny.gguf").read_bytes() == WEIGHTS
    assert "model: tiny.gguf" in (models / "tiny.yaml").read_text()
    assert node.said('model not prefetched: model=unheard-of error=no model found with name "unheard-of"')
    log = node.log
    assert log.index("model prefetched: model=tiny") < log.index("worker ready")


async def test_the_frontend_finds_what_was_prefetched_under_the_models_name(node: Node) -> None:
    """M-7.4, M-7.5."""
    url = f"http://{node.worker.http_address}/v1/files/models/org/tiny/tiny.gguf"
    headers = {"Authorization": f"Bearer {node.cluster.token}"}
    async with httpx.AsyncClient(trust_env=False) as client:
        found = await client.head(url, headers=headers)
    assert found.status_code == 200
    assert found.headers["X-Content-SHA256"] == hashlib.sha256(WEIGHTS).hexdigest()
    models = node.backends.parent / "models"
    assert (models / "org/tiny/tiny.gguf").samefile(models / "tiny.gguf")


async def test_a_meta_backend_comes_from_a_gallery_on_the_web_and_its_install_is_told(
    node: Node, web: Web, tmp_path: Path
) -> None:
    """N-B29, G-1.3.8: the gallery itself is down, its mirror serves."""
    directory = tiny_backends.healthy(tmp_path, "engine")
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    image = archives.write_oci(tmp_path / "engine.tar", archives.tree_tar(files))
    web.pages["/backends.yaml"] = Page(ENGINES.replace("@IMAGE@", str(image)).encode())
    gallery = Gallery("site", web.url("/down.yaml"), (web.url("/backends.yaml"),))

    events: list[BackendInstallProgress] = []
    bus = node.cluster.frontend.bus
    subscription = await bus.subscribe(node.subjects.install_progress("op.1"))

    async def listen() -> None:
        async for message in subscription:
            events.append(BackendInstallProgress.from_wire(message.payload))

    async with anyio.create_task_group() as listening:
        listening.start_soon(listen)
        address = await node.cluster.frontend.install(
            node.id, "site@engine", model_id="m", galleries=[gallery], op_id="op.1"
        )
        assert events, "progress comes before the reply"
        await subscription.unsubscribe()
        listening.cancel_scope.cancel()
    assert address.rpartition(":")[2].isdigit()
    phases = [phase for phase, _ in itertools.groupby(event.phase for event in events)]
    assert phases == ["resolving", "extracting", "starting"] or phases == [
        "resolving",
        "downloading",
        "extracting",
        "starting",
    ]
    percentages = [event.percentage for event in events]
    assert percentages == sorted(percentages)
    assert percentages[-1] == 100
    assert await node.listed() == ["cpu-engine"]
    assert node.said("gallery source failed: gallery=site")
    copies = list((node.backends.parent / "cache/gallery").glob("*.yaml"))
    assert web.pages["/backends.yaml"].body in [copy.read_bytes() for copy in copies]
