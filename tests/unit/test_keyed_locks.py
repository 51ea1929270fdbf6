from anyio import Event, create_task_group, wait_all_tasks_blocked

from localai_worker.domain.keyed_locks import KeyedLocks


async def test_one_key_has_one_holder_at_a_time_first_come_first_served() -> None:
    locks, order = KeyedLocks[str](), list[str]()
    leave = {name: Event() for name in "abc"}

    async def hold(name: str) -> None:
        async with locks.hold("key"):
            order.append(name)
            await leave[name].wait()

    async with create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(hold, name)
        for held in ("a", "ab", "abc"):
            await wait_all_tasks_blocked()
            assert "".join(order) == held
            leave[held[-1]].set()
    assert len(locks) == 0


async def test_different_keys_do_not_wait_for_each_other() -> None:
    locks = KeyedLocks[int]()
    async with locks.hold(1), locks.hold(2):
        assert len(locks) == 2
    assert len(locks) == 0


async def test_a_waiter_that_is_cancelled_leaves_nothing_behind() -> None:
    locks = KeyedLocks[str]()

    async def wait_in_vain() -> None:
        async with locks.hold("key"):
            raise AssertionError

    async with locks.hold("key"), create_task_group() as tasks:
        tasks.start_soon(wait_in_vain)
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert len(locks) == 0


async def test_several_locks_are_taken_in_one_order_and_all_given_back() -> None:
    locks, held = KeyedLocks[str](), list[str]()

    async def hold(name: str, keys: tuple[str, ...]) -> None:
        async with locks.hold_all(keys):
            held.append(name)
            await wait_all_tasks_blocked()

    async with create_task_group() as tasks:
        tasks.start_soon(hold, "one", ("a", "b", "a"))
        tasks.start_soon(hold, "other", ("b", "a"))
    assert held == ["one", "other"]
    assert len(locks) == 0
