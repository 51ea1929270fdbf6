"""Fixtures for your own tests, there as soon as this package is installed.

`localai_node`: a worker in memory that is up; override `localai_environment` to set it up otherwise.
`localai_broker` and `localai_bus`: a message bus without a worker.

They need an async test of anyio's (`pytest.mark.anyio` or `anyio_mode = auto`); nothing is imported before
one of them is used.
"""

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import InMemoryBroker, InMemoryMessageBus, MemoryNode


@pytest.fixture
def localai_environment() -> Mapping[str, str]:
    """Environment variables of the worker in `localai_node`."""
    return {}


@pytest.fixture
async def localai_node(
    anyio_backend: Any, localai_environment: Mapping[str, str]
) -> "AsyncIterator[MemoryNode]":
    """A worker in memory that is registered and takes commands; it stops in good order afterwards."""
    del anyio_backend  # it makes anyio run this fixture
    from .testing import memory_node

    async with memory_node(**localai_environment) as node:
        yield node


@pytest.fixture
def localai_broker() -> "InMemoryBroker":
    """The server that in-memory buses connect to; set it `offline` to pull the plug."""
    from .testing import InMemoryBroker

    return InMemoryBroker()


@pytest.fixture
async def localai_bus(
    anyio_backend: Any, localai_broker: "InMemoryBroker"
) -> "AsyncIterator[InMemoryMessageBus]":
    """A client of `localai_broker` that is connected."""
    del anyio_backend
    from .testing import InMemoryMessageBus

    bus = InMemoryMessageBus(localai_broker)
    await bus.open()
    yield bus
    await bus.close()
