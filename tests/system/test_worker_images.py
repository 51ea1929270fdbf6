"""Images from a real registry, installed by a real worker on the frontend's word."""

import gzip
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from localai_worker.adapters.artifacts.blobs.store import BlobStore
from localai_worker.app.simulator.local_cluster import LocalCluster
from localai_worker.domain.node import NodeId
from tests.archives import digest_of, entry, tar
from tests.docker_registry import docker_registry
from tests.faulty_proxy import faulty_proxy
from tests.registry import Image, own_registry
from tests.system import tiny_backends
from tests.system.nodes import start_node, until

MIB = 1 << 20


def backend_layer(top: Path, *extra: tuple[str, bytes]) -> bytes:
    """A tiny backend as a layer, with files beside it."""
    directory = tiny_backends.healthy(top, "packed")
    files = [(path.name, path.read_bytes()) for path in sorted(directory.iterdir())]
    return gzip.compress(tar([entry(name, content, mode=0o755) for name, content in (*files, *extra)]), 1)


@pytest.mark.parametrize("layers", [1, 3])
async def test_an_image_pushed_to_a_registry_is_installed_and_runs(
    cluster: LocalCluster, tmp_path: Path, layers: int
) -> None:
    node = await start_node(cluster, f"images-{layers}")
    content = [gzip.compress(tar([entry(f"lib/{n}", os.urandom(100_000))])) for n in range(layers - 1)]
    with docker_registry(tmp_path) as registry:
        uri = registry.push(Image([*content, backend_layer(tmp_path)]))
        address = await cluster.frontend.install(node.id, "packed", model_id="qwen", uri=uri, name="packed")
    await cluster.frontend.inference.health(address, timeout_s=5)
    assert "packed" in await node.listed()


@dataclass
class Slow:
    """A registry that sends 2 MiB/s on each connection until `hurry`, and the ranges it was asked for."""

    uri: str
    hurry: Callable[[], None]
    ranges: Callable[[], list[str]]


@contextmanager
def slow_own(image: Image) -> Iterator[Slow]:
    with own_registry(bytes_per_s=2 * MIB) as own:

        def hurry() -> None:
            own.bytes_per_s = 0

        def ranges() -> list[str]:
            return [headers["Range"] for _, headers in own.gets("/blobs/")]

        yield Slow(own.pushed.push(image), hurry, ranges)


@contextmanager
def slow_docker(top: Path, image: Image) -> Iterator[Slow]:
    """docker-registry behind a proxy."""
    with docker_registry(top) as real, faulty_proxy(int(real.host.rpartition(":")[2])) as proxy:
        proxy.bytes_per_s = 2 * MIB

        def hurry() -> None:
            proxy.bytes_per_s = 0

        def ranges() -> list[str]:
            asked = b"".join(proxy.requests).decode("latin-1")
            heads = re.findall(r"GET /v2/\S+/blobs/\S+ HTTP/1.1\r\n(.*?)\r\n\r\n", asked, re.DOTALL)
            return [found for head in heads for found in re.findall(r"(?im)^range: (\S+)", head)]

        yield Slow(real.push(image).replace(real.host, f"127.0.0.1:{proxy.port}"), hurry, ranges)


def length(range_header: str) -> int:
    """How many bytes `bytes=FIRST-LAST` asks for."""
    first, last = range_header.removeprefix("bytes=").split("-")
    return int(last) - int(first) + 1


@pytest.mark.parametrize("kind", ["docker-registry", "own"])
async def test_a_worker_killed_in_the_middle_of_a_layer_goes_on_at_the_byte(
    cluster: LocalCluster, tmp_path: Path, kind: str
) -> None:
    """G-F10: kill -9, start again, install again: nothing that came in is fetched twice."""
    layer = backend_layer(tmp_path, ("big", os.urandom(20 * MIB)))
    name = f"killed-{kind}"
    node = await start_node(cluster, name)
    store = BlobStore(node.backends / ".blobs")

    def missing_bytes() -> int:
        return store.missing_bytes(digest_of(layer), len(layer))

    image = Image([layer])
    with slow_own(image) if kind == "own" else slow_docker(tmp_path, image) as registry:

        async def install(node_id: NodeId) -> str:
            return await cluster.frontend.install(
                node_id, "packed", model_id="qwen", uri=registry.uri, name="packed"
            )

        async with anyio.create_task_group() as asking:
            asking.start_soon(install, node.id)
            await until(lambda: missing_bytes() < len(layer) - 2 * MIB)
            await node.signalled(signal.SIGKILL)
            asking.cancel_scope.cancel()
        left_bytes = missing_bytes()
        assert MIB < left_bytes < len(layer) - 2 * MIB
        leftovers = [path.name for path in node.backends.iterdir() if path.name.endswith(".incoming")]
        assert leftovers
        registry.hurry()
        asked = len(registry.ranges())
        again = await start_node(cluster, name)
        await cluster.frontend.wait_until_it_answers(again.id)
        await until(lambda: not any((node.backends / name).exists() for name in leftovers))
        address = await install(again.id)
        # By what was asked for: the registry may still be sending to connections of the killed worker.
        assert sum(map(length, registry.ranges()[asked:])) == left_bytes
    await cluster.frontend.inference.health(address, timeout_s=5)
    assert (node.backends / "packed/big").stat().st_size == 20 * MIB
