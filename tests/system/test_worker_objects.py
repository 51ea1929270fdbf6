"""A real worker process with a real S3 server."""

import random
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import anyio
import httpx
import pytest

from localai_worker.adapters.filesystem.ranged_files import LocalRangedFiles
from localai_worker.adapters.s3.lazy import LazyS3ObjectStore
from localai_worker.app.simulator.failures import CommandRefused
from localai_worker.app.simulator.local_cluster import LocalCluster
from localai_worker.app.simulator.object_staging import ObjectStager
from localai_worker.app.simulator.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server, s3_server
from localai_worker.domain.messages.files import FilesEnsureRequest
from tests.servers import find_executable, free_port
from tests.system.nodes import PATIENCE_S, start_node, until


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


async def test_a_store_that_never_answers_holds_up_no_end_of_a_worker(cluster: LocalCluster) -> None:
    """N-B22: what it was asked at the start and by a request waits for it; the signal does not."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE_S)
        settings = S3Server(silent.getsockname()[1]).settings
        node = await start_node(cluster, "silenced", settings)
        request = FilesEnsureRequest(key="models/m/weights").to_wire()
        replies: list[bytes] = []

        async def ensure() -> None:
            asking = cluster.frontend.bus.request
            replies.append(await asking(node.subjects.files_ensure, request, timeout_s=60))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ensure)
            with ExitStack() as stack:
                for _ in range(2):
                    connection, _ = await anyio.to_thread.run_sync(silent.accept)
                    stack.enter_context(connection)
                assert await node.signalled(signal.SIGTERM) == 0
    assert b"this worker is shutting down" in replies[0]
    assert "Traceback" not in node.log
