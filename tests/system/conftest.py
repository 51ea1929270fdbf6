"""One cluster of real parts per test module."""

from collections.abc import AsyncIterator

import pytest

from localai_worker.app.simulator.local_cluster import LocalCluster, local_cluster
from tests.servers import find_executable


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The event loop of every test here, and of the fixtures that a module shares."""
    return "asyncio"


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    """A NATS server and the simulated frontend; tests start workers of names of their own."""
    find_executable("nats-server")
    async with local_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
