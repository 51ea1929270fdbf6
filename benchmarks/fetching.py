"""One fetch in a process of its own: `python -m benchmarks.fetching HOST URI TOP [CONNECTIONS]`.

Into `TOP/into`, blobs in `TOP/blobs`, swapped in as an install does. Prints one JSON object: seconds, bytes
downloaded, and by how much the memory grew.
"""

import json
import shutil
import sys
import time
from pathlib import Path

import anyio
import psutil

from localai_worker.adapters.artifacts.blobs.fetch import BlobFetcher
from localai_worker.adapters.artifacts.blobs.store import BlobStore
from localai_worker.adapters.artifacts.registry.client import RegistryClient
from localai_worker.adapters.artifacts.registry.credentials import DockerLogins
from localai_worker.adapters.artifacts.registry.images import RegistryImages
from localai_worker.adapters.artifacts.web.client import WebClient
from localai_worker.adapters.artifacts.web.patience import Patience
from localai_worker.adapters.filesystem.local import LocalFileSystem

MIB = 2**20


def images(top: Path, connections: int) -> RegistryImages:
    """What a worker reads images with, at its defaults."""
    client = RegistryClient(WebClient(), DockerLogins({}))
    fetcher = BlobFetcher(BlobStore(top / "blobs"), Patience(), 60.0, 512 * MIB, connections)
    return RegistryImages(client, fetcher)


async def fetch(uri: str, top: Path, connections: int) -> dict[str, float]:
    """Fetch, swap in, and tell what it took."""
    source, filesystem, target = images(top, connections), LocalFileSystem(), top / "into"
    await source.describe(uri)  # connections, TLS roots and modules as in a worker that runs for a while
    process = psutil.Process()
    before_bytes, started_s = process.memory_info().rss, time.monotonic()
    peak_bytes = before_bytes
    private = await filesystem.private_directory(target)

    async def watch() -> None:
        nonlocal peak_bytes
        while True:
            peak_bytes = max(peak_bytes, process.memory_info().rss)
            await anyio.sleep(0.02)

    async with anyio.create_task_group() as watching:
        watching.start_soon(watch)
        fetched = await source.fetch(uri, private)
        watching.cancel_scope.cancel()
    fetched_s = time.monotonic()
    await filesystem.replace_directory(private, target)
    return {
        "seconds": time.monotonic() - started_s,
        "fetch_seconds": fetched_s - started_s,
        "downloaded_bytes": fetched.downloaded_bytes,
        "size_bytes": fetched.size_bytes,
        "growth_mib": (peak_bytes - before_bytes) / MIB,
    }


def main() -> None:
    """Parse, fetch, print."""
    uri, top = sys.argv[1], Path(sys.argv[2])
    connections = int(sys.argv[3]) if len(sys.argv) > 3 else 8
    top.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(top / "into", ignore_errors=True)
    print(json.dumps(anyio.run(fetch, uri, top, connections)))


if __name__ == "__main__":
    main()
