"""A real worker process with a real S3 server."""

import random
from pathlib import Path

import httpx
import pytest

from localai_worker.adapters.filesystem.ranged_files import LocalRangedFiles
from localai_worker.adapters.s3.lazy import LazyS3ObjectStore
from localai_worker.app.simulator.failures import CommandRefused
from localai_worker.app.simulator.local_cluster import LocalCluster
from localai_worker.app.simulator.object_staging import ObjectStager
from localai_worker.app.simulator.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server, s3_server
from tests.servers import find_executable, free_port
from tests.system.nodes import start_node, until


async def test_a_worker_waits_for_its_store_and_brings_what_changes(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """S-K05, N-B22: the store comes up after the worker; the same key twice, with new bytes."""
    find_executable("rclone")
    server = S3Server(free_port())
    node = await start_node(cluster, "stager", server.settings)
    store = LazyS3ObjectStore(server.url, BUCKET, "us-east-1", ACCESS_KEY, SECRET_KEY)
    stager = ObjectStager(store, LocalRangedFiles(), node.subjects, cluster.frontend.bus.request)
    source = tmp_path / "weights"
    source.write_bytes(random.Random(1).randbytes(3_000_000))
    await until(lambda: "check LOCALAI_STORAGE_URL" in node.log)
    async with httpx.AsyncClient(base_url=f"http://{node.worker.http_address}", trust_env=False) as http:
        ready = await http.get("/readyz")
    assert ready.status_code == 200  # work can come over HTTP, and other nodes fare no better
    assert "object store" in ready.text
    temporary = await stager.alloc_temp()
    with pytest.raises(CommandRefused, match="check LOCALAI_STORAGE_URL"):
        await stager.fetch_result(temporary, tmp_path / "result")
    async with s3_server(tmp_path / "objects", server.port):
        await until(lambda: "object store answers again" in node.log)
        remote = Path(await stager.ensure(source, "models/m/weights"))
        assert remote.read_bytes() == source.read_bytes()
        source.write_bytes(random.Random(2).randbytes(3_000_000))
        await stager.put(source, "models/m/weights")
        assert Path(await stager.ensure(source, "models/m/weights")) == remote
        assert remote.read_bytes() == source.read_bytes()
        await cluster.frontend.delete_model(node.id, "m")
        assert not remote.exists()
        await store.close()
    assert await node.worker.stop() == 0
    assert "Traceback" not in node.log
