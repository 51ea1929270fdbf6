"""Everybody who listens moves to another connection, whatever happens to either on the way."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import anyio
import pytest

from localai_worker.adapters.nats.link import LinkLost
from localai_worker.adapters.nats.listeners import Listeners
from localai_worker.domain.ports.bus import BusMessage

if TYPE_CHECKING:
    from localai_worker.adapters.nats.link import Link


class Reader:
    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.payloads: list[bytes] = []

    def deliver(self, message: BusMessage, no_responders: bool) -> None:
        assert not no_responders
        self.payloads.append(message.payload)

    def end(self) -> None:
        raise AssertionError("nothing ends here")


class Wire:
    """A connection whose messages a test brings; it dies at its `dies_at`th confirmation."""

    reason = "cut"

    def __init__(self, dies_at: int = 0) -> None:
        self.ended = asyncio.Event()
        self.routes: dict[str, Callable[[BusMessage, bool], None]] = {}
        self.confirmed = 0
        self._dies_at = dies_at
        self.on_confirm: Callable[[], None] = lambda: None

    def bring(self, subject: str, text: str) -> None:
        if subject in self.routes:
            self.routes[subject](BusMessage(subject, text.encode(), f"_INBOX.{text}"), False)

    async def listen(self, subject: str, deliver: Callable[[BusMessage, bool], None]) -> str:
        await anyio.lowlevel.checkpoint()
        self.check_alive()
        self.routes[subject] = deliver
        return subject

    async def stop_listening(self, handle: str) -> None:
        await anyio.lowlevel.checkpoint()
        self.routes.pop(handle, None)

    async def confirm(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.confirmed += 1
        self.on_confirm()
        if self.confirmed == self._dies_at:
            self.ended.set()

    def check_alive(self) -> None:
        if self.ended.is_set():
            raise LinkLost(self.reason)

    def denial(self, _subject: str) -> str | None:
        return None

    @property
    def link(self) -> "Link":
        return cast("Link", self)


@pytest.fixture
def old() -> Wire:
    return Wire()


@pytest.fixture
async def listeners(old: Wire) -> Listeners:
    listeners = Listeners()
    await listeners.settle(old.link)
    return listeners


async def test_all_move_and_the_old_connection_falls_silent(listeners: Listeners, old: Wire) -> None:
    readers = [Reader("a"), Reader("b")]
    for reader in readers:
        await listeners.add(reader)
    new = Wire()
    old.bring("a", "before")
    await listeners.move(new.link)
    new.bring("a", "after")
    assert listeners.link is new.link
    assert (set(old.routes), set(new.routes)) == (set(), {"a", "b"})
    assert readers[0].payloads == [b"before", b"after"]


async def test_what_comes_late_by_the_old_connection_is_neither_lost_nor_doubled(
    listeners: Listeners, old: Wire
) -> None:
    """What was sent before the new one listened comes by the old one alone, however late."""
    reader = Reader("a")
    await listeners.add(reader)
    new = Wire()
    old_first = old.confirmed

    def late_by_the_old() -> None:
        if old.confirmed == old_first + 1:
            old.bring("a", "old only")
            old.bring("a", "both")

    def late_by_the_new() -> None:
        if new.confirmed == 2:
            new.bring("a", "both")
            new.bring("a", "new only")

    old.on_confirm, new.on_confirm = late_by_the_old, late_by_the_new
    await listeners.move(new.link)
    assert reader.payloads == [b"old only", b"both", b"new only"]


async def test_a_new_connection_that_dies_first_changes_nothing(listeners: Listeners, old: Wire) -> None:
    reader = Reader("a")
    await listeners.add(reader)
    new = Wire(dies_at=1)
    with pytest.raises(LinkLost):
        await listeners.move(new.link)
    old.bring("a", "heard")
    assert listeners.link is old.link
    assert listeners.supplied(reader)
    assert reader.payloads == [b"heard"]


async def test_a_new_connection_that_dies_last_is_in_use_and_gives_what_it_brought(
    listeners: Listeners, old: Wire
) -> None:
    """The old one is silent by then: whoever owns the connections makes the next one."""
    reader = Reader("a")
    await listeners.add(reader)
    new = Wire(dies_at=2)
    new.on_confirm = lambda: new.bring("a", f"at {new.confirmed}")
    await listeners.move(new.link)
    assert listeners.link is new.link
    assert new.ended.is_set()
    assert reader.payloads == [b"at 1", b"at 2"]


async def test_who_comes_or_goes_during_a_move_is_where_the_others_are(
    listeners: Listeners, old: Wire
) -> None:
    stays, goes, comes = Reader("stays"), Reader("goes"), Reader("comes")
    await listeners.add(stays)
    await listeners.add(goes)
    new = Wire()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listeners.move, new.link)
        await anyio.lowlevel.checkpoint()
        await listeners.remove(goes)
        await listeners.add(comes)
    assert set(new.routes) == {"stays", "comes"}
    assert old.routes == {}


async def test_an_add_that_was_cut_short_can_be_repeated(listeners: Listeners, old: Wire) -> None:
    reader = Reader("a")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await listeners.add(reader)
    assert not listeners.supplied(reader)
    for _ in range(2):
        await listeners.add(reader)
    assert listeners.supplied(reader)
    assert set(old.routes) == {"a"}
