"""How long it takes to find a backend in a gallery of a thousand entries.

    .venv/bin/python -m benchmarks.galleries [--quick]

Cold is a worker that has read no gallery yet: fetched over HTTP on loopback, parsed, searched. Warm is every
later lookup. The peer parses the same bytes with PyYAML's C loader, which makes numbers of texts.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import yaml

from benchmarks.harness import Report, percentile, run
from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.galleries.documents import GalleryDocumentReaders
from localai_worker.adapters.galleries.http import HttpDocuments
from localai_worker.adapters.galleries.yaml_text import parse_yaml
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.gallery_index import GalleryIndexes
from localai_worker.domain.read_galleries import ReadGalleries

ENTRIES = 1000
CAPABILITIES = ("default", "nvidia", "amd", "intel", "metal", "vulkan", "nvidia-l4t", "nvidia-cuda-12")
CONCRETES = 6  # for each meta entry, as in the official index
TICK_S = 0.001


def index(entries: int = ENTRIES) -> bytes:
    """An index like the official one: meta entries under anchors, concretes that merge them."""
    lines = ["---"]
    for number in range(entries // (CONCRETES + 1)):
        name = f"engine-{number}"
        lines += [
            f'- &engine{number}\n  name: "{name}"\n  alias: "{name}"\n  license: mit',
            f"  icon: https://example.invalid/{name}.png\n  version: 1.10",
            f"  description: |\n    Engine {number} runs models.\n    It says: more in its own words.",
            f"  urls:\n    - https://example.invalid/{name}\n  tags:\n    - LLM\n    - CPU\n  capabilities:",
            *(f'    {capability}: "{capability}-{name}"' for capability in CAPABILITIES),
        ]
        for capability in CAPABILITIES[:CONCRETES]:
            image = f"local-ai-backends:latest-{capability}-{name}"
            lines.append(
                f'- !!merge <<: *engine{number}\n  name: "{capability}-{name}"\n'
                f'  uri: "quay.io/example/{image}"\n  mirrors:\n    - example/{image}'
            )
    return "\n".join(lines).encode()


@contextmanager
def served(content: bytes) -> Iterator[str]:
    """The url of `content` on a web server of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/index.yaml"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def indexes(top: Path) -> GalleryIndexes:
    """What a worker finds backends with, nothing read yet."""
    documents = GalleryDocumentReaders({"http://": HttpDocuments})
    reader = ReadGalleries(documents, LocalFileSystem(), top / "backends", top / "cache")
    return GalleryIndexes(reader, "nvidia")


async def longest_pause_s(stop: anyio.Event, pauses: list[float]) -> None:
    """How long the event loop kept a task waiting, more than it asked for."""
    while not stop.is_set():
        before_s = time.perf_counter()
        await anyio.sleep(TICK_S)
        pauses.append(time.perf_counter() - before_s - TICK_S)


async def measure(report: Report, quick: bool) -> None:
    content = index()
    name = f"engine-{ENTRIES // (CONCRETES + 1) - 1}"  # the last one
    rounds, lookups = (3, 50) if quick else (15, 500)
    colds_ms, warms_ms, pauses_s = [], [], list[float]()
    with tempfile.TemporaryDirectory() as top, served(content) as url:
        gallery = Gallery("bench", url)
        await indexes(Path(top)).choose(name, [gallery])  # libraries are loaded once in a worker's life
        for _ in range(rounds):
            search, stop = indexes(Path(top)), anyio.Event()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(longest_pause_s, stop, pauses_s)
                await anyio.sleep(TICK_S)
                started_s = time.perf_counter()
                await search.choose(name, [gallery])
                colds_ms.append((time.perf_counter() - started_s) * 1000)
                stop.set()
            for _ in range(lookups // rounds):
                started_s = time.perf_counter()
                await search.choose(name, [gallery])
                warms_ms.append((time.perf_counter() - started_s) * 1000)
    ours_ms, peers_ms = [], []
    for _ in range(rounds):
        started_s = time.perf_counter()
        parse_yaml(content, uri="bench")
        ours_ms.append((time.perf_counter() - started_s) * 1000)
        started_s = time.perf_counter()
        yaml.load(content, Loader=yaml.CSafeLoader)
        peers_ms.append((time.perf_counter() - started_s) * 1000)
    report.figure("entries", content.count(b"\n- "))
    report.figure("index KiB", len(content) / 1024)
    report.figure("cold p50 ms", statistics.median(colds_ms))
    report.figure("warm p50 ms", statistics.median(warms_ms))
    report.figure("parse p50 ms", statistics.median(ours_ms))
    report.figure("PyYAML C loader p50 ms", statistics.median(peers_ms))
    report.figure("longest pause of the event loop ms", max(pauses_s) * 1000)
    report.at_most("resolve a name, cold, slowest, ms", max(colds_ms), 1000)
    report.at_most("resolve a name, warm, p99, ms", percentile(warms_ms, 0.99), 50)
    report.at_most("parsing / PyYAML C loader", statistics.median(ours_ms) / statistics.median(peers_ms), 1)


if __name__ == "__main__":
    run("galleries", measure)
