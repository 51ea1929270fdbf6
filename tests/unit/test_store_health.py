"""The worker looks after an object store that does not answer, and tells when it does again."""

import logging
from pathlib import Path

import pytest
from anyio import create_task_group, sleep

from localai_worker.adapters.memory.object_store import InMemoryObjectStore
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.errors import FileUnreadable
from localai_worker.domain.store_errors import StoreUnavailable
from localai_worker.domain.store_health import StoreHealth


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


async def watched(health: StoreHealth, *steps: tuple[float, bool]) -> list[str]:
    """The worry after each step: `(seconds, offline from then on)`."""
    worries = []
    store = health.store
    assert isinstance(store, InMemoryObjectStore)
    async with create_task_group() as tasks:
        tasks.start_soon(health.watch)
        for seconds, offline in steps:
            store.offline = offline
            await sleep(seconds)
            worries.append(health.worry)
        tasks.cancel_scope.cancel()
    return worries


async def test_a_store_that_is_away_at_the_start_is_found_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    away, back = await watched(StoreHealth(InMemoryObjectStore()), (300, True), (31, False))
    assert "offline" in away
    assert back == ""
    assert caplog.text.count("asking again until it answers") == 1
    assert "answers again" in caplog.text


async def test_a_failed_operation_is_a_reason_to_ask() -> None:
    health = StoreHealth(InMemoryObjectStore())
    async with create_task_group() as tasks:
        tasks.start_soon(health.watch)
        await sleep(0.01)
        health.failed(FileUnreadable(Path("/x"), "not the store's fault"))
        assert health.worry == ""
        health.failed(StoreUnavailable("getting object x", "gone"))
        assert health.worry == "getting object x: gone"
        await sleep(0.05)
        assert health.worry == ""  # asked, and it answered
        tasks.cancel_scope.cancel()
