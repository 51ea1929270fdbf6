"""Fixtures every test may use."""

import pytest
from hypothesis import settings

from tests.s3_servers import rclone_s3, seaweed_s3
from tests.servers import nats_server

__all__ = ["anyio_backend", "nats_server", "rclone_s3", "seaweed_s3"]


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of every async test: nats-py and grpc.aio are asyncio only."""
    return "asyncio"


# How long an example may take says nothing on a busy machine; no test asserts a time.
settings.register_profile("project", deadline=None)
settings.load_profile("project")
