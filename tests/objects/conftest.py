"""Nodes over every adapter of the object store."""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faulty_proxy import faulty_proxy
from tests.objects.nodes import KINDS, ObjectNode, directory_node, memory_node, s3_node
from tests.s3_servers import S3Server


@pytest.fixture(params=KINDS)
async def node(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectNode]:
    """A node whose object store is of each kind; the S3 servers are behind a proxy that can cut and stall."""
    monkeypatch.setattr("localai_worker.adapters.s3.client.ATTEMPTS", 1)
    monkeypatch.setattr("localai_worker.adapters.s3.download.FIRST_PAUSE_S", 0.001)
    with ExitStack() as stack:
        if request.param == "memory":
            node = memory_node()
        elif request.param == "directory":
            node = directory_node(tmp_path)
        else:
            server: S3Server = request.getfixturevalue(f"{request.param}_s3")
            node = s3_node(request.param, tmp_path, stack.enter_context(faulty_proxy(server.port)))
        yield node
        await node.store.close()
