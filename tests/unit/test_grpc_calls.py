"""gRPC calls under anyio: time limits of the caller hold whatever grpcio makes of a cancellation."""

import socket
from collections.abc import Iterator

import anyio
import pytest

from localai_worker.adapters.grpc import calls


@pytest.fixture
def mute() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield "{}:{}".format(*listener.getsockname())


async def test_a_time_limit_around_a_call_ends_the_call_and_nothing_else(mute: str) -> None:
    """The cancellation used to leave its scope: an install was answered as if the worker was going down."""
    with anyio.move_on_after(0.1) as limit:
        await calls.health(mute, "", timeout_s=30)
    assert limit.cancelled_caught
    await anyio.lowlevel.checkpoint()


async def test_a_cancelled_group_takes_its_calls_along(mute: str) -> None:

    async def call() -> None:
        await calls.health(mute, "", timeout_s=30)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(call)
            await anyio.sleep(0.1)
            tasks.cancel_scope.cancel()
