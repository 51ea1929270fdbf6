"""The clock that jumps, and the order that never changes."""

import asyncio
import subprocess
import sys

import anyio
import pytest
from anyio._backends import _asyncio as anyio_asyncio
from anyio._core import _eventloop as anyio_eventloop

from localai_worker.app.virtual_time import run_in_virtual_time

# Prints the order in which tasks and nested scopes are cancelled: both lie in sets.
CANCELLATIONS = """
import anyio
from localai_worker.app.virtual_time import run_in_virtual_time

order = []

async def sleeper(number):
    ballast = [object() for _ in range(hash(str(number)) % 97)]
    try:
        with anyio.CancelScope():
            await anyio.sleep(1000)
    finally:
        order.append(number)

async def main():
    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(sleeper, number)
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()

run_in_virtual_time(main)
print(order)
"""


async def hours() -> float:
    began_s = anyio.current_time()
    with anyio.move_on_after(3600):
        await anyio.sleep(100 * 3600)
    await anyio.sleep(1800)
    return anyio.current_time() - began_s


def test_sleeps_and_deadlines_take_no_time() -> None:
    assert run_in_virtual_time(hours) == 5400


def test_a_program_in_which_everybody_waits_is_told() -> None:
    async def waits() -> None:
        await anyio.Event().wait()

    with pytest.raises(RuntimeError, match="would hang for ever"):
        run_in_virtual_time(waits)


def test_cancellation_reaches_tasks_and_scopes_in_the_same_order_in_every_process() -> None:
    orders = {
        subprocess.run(
            [sys.executable, "-c", CANCELLATIONS],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(orders) == 1


def test_anyio_is_as_it_was_afterwards() -> None:
    async def waits() -> None:
        await anyio.Event().wait()

    def parts() -> list[object]:
        names = ("CancelScope", "current_task", "sleep")
        of_the_backend = vars(anyio_asyncio.AsyncIOBackend)["current_time"]
        return [
            *(vars(anyio_asyncio)[name] for name in names),
            of_the_backend,
            anyio_eventloop.current_async_library,
        ]

    before = parts()
    run_in_virtual_time(hours)
    with pytest.raises(RuntimeError, match="would hang for ever"):
        run_in_virtual_time(waits)
    assert parts() == before


def test_callbacks_run_in_the_order_of_their_time_and_a_cancelled_or_failing_one_ends_nothing() -> None:
    async def main() -> tuple[list[str], list[str]]:
        loop, ran, told = asyncio.get_running_loop(), list[str](), list[str]()
        loop.set_exception_handler(lambda _, context: told.append(repr(context["exception"])))
        late = loop.call_later(3, ran.append, "cancelled")
        loop.call_at(loop.time() + 2, ran.append, "second")
        loop.call_later(1, ran.append, "first")
        loop.call_soon_threadsafe(ran.append, "at once")
        loop.call_soon(int, "no number")
        late.cancel()
        await anyio.sleep(10)
        assert late.cancelled()
        assert late.when() == 3
        return ran, told

    ran, told = run_in_virtual_time(main)
    assert ran == ["at once", "first", "second"]
    assert ["no number" in each for each in told] == [True]
