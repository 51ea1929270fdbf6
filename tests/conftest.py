"""Fixtures every test may use."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of every async test: nats-py and grpc.aio are asyncio only."""
    return "asyncio"
