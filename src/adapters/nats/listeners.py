"""Who listens on what, whatever connection there is at the moment."""

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from ...domain.errors import SubscriptionDenied
from .handover import Feed, Listener

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription as Handle

    from .link import Link

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A listener's subject, asked for on a link."""

    link: "Link"
    handle: "Handle"
    feed: Feed


@dataclass
class Listeners:
    """Every listener of a bus, and where its subject has been asked for.

    `link` is the connection in use, None while there is none; whoever makes one calls `settle`.
    """

    link: "Link | None" = None
    _asked: dict[Listener, _Asked | None] = field(default_factory=dict)
    _settling: anyio.Lock = field(default_factory=anyio.Lock)  # then nobody asks on his own

    @property
    def denied(self) -> tuple[str, ...]:
        """The subjects that the server does not let us listen on."""
        if self.link is None:
            return ()
        return tuple(each.subject for each in self._asked if self.link.denial(each.subject) is not None)

    def supplied(self, listener: Listener) -> bool:
        """Whether the subject of `listener` has been asked for on the link in use."""
        asked = self._asked.get(listener)
        return asked is not None and asked.link is self.link

    async def add(self, listener: Listener) -> "Link | None":
        """Keep `listener` supplied from now on; the link that was asked, None while disconnected.

        To add it again does no harm, and finishes an `add` that was cut short.
        """
        from .link import LinkLost

        self._asked.setdefault(listener, None)
        async with self._settling:
            try:
                await self._ask(listener)
            except LinkLost:
                return None
            return self.link

    async def remove(self, listener: Listener) -> None:
        """Supply `listener` no more; idempotent."""
        asked = self._asked.pop(listener, None)
        if asked is not None:
            await asked.link.stop_listening(asked.handle)

    async def settle(self, link: "Link") -> None:
        """Use `link` after a time without any: ask for everything, and tell what is denied.

        Raises:
            LinkLost: the link has ended.
        """
        self.link = link
        async with self._settling:
            for listener in tuple(self._asked):
                if listener in self._asked:
                    await self._ask(listener)
            await link.confirm()
        self._tell_denials()

    async def move(self, new: "Link") -> None:
        """Use `new` in place of the link in use, which loses nothing and doubles nothing.

        Everybody listens on both for a moment; the old link falls silent, and the new one goes on after
        its last message. The old one can be closed then.

        Raises:
            LinkLost: the new link has ended; the old one is used as before.
        """
        async with self._settling:
            old = self.link
            before = {each: asked for each, asked in self._asked.items() if asked and asked.link is old}
            for asked in before.values():
                asked.feed.keep_record()
            try:
                after = await self._listen_beside(new)
            except BaseException:
                for asked in before.values():
                    asked.feed.stop_record()
                raise
            if old is not None:
                # What it sent before the new link was listening has come by then; all else both bring.
                await old.confirm()
                for asked in before.values():
                    await old.stop_listening(asked.handle)
                await old.confirm()
                await new.confirm()  # and all that both have brought has come by both
            await self._switch(new, before, after)
            if old is not None:
                await old.confirm()  # what was sent by it until now
        self._tell_denials()

    def end(self) -> None:
        """Let every listener come to its end."""
        self.link = None
        asked, self._asked = self._asked, {}
        for listener in asked:
            listener.end()

    async def _ask(self, listener: Listener) -> None:
        link, asked = self.link, self._asked.get(listener)
        if link is None or (asked is not None and asked.link is link):
            return
        fresh = await self._listen(listener, link)
        if listener in self._asked:
            self._asked[listener] = fresh
        else:  # its reader left meanwhile
            await link.stop_listening(fresh.handle)

    async def _listen_beside(self, new: "Link") -> dict[Listener, _Asked]:
        """Ask for everything on `new`, which holds back what it brings."""
        asked = {listener: await self._listen(listener, new) for listener in tuple(self._asked)}
        await new.confirm()
        new.check_alive()
        return asked

    async def _switch(
        self, new: "Link", before: dict[Listener, _Asked], after: dict[Listener, _Asked]
    ) -> None:
        self.link = new  # and no waiting until everybody is supplied by it
        gone = [listener for listener in after if listener not in self._asked]  # its reader left meanwhile
        for listener in after.keys() - gone:
            self._asked[listener] = after[listener]
            record = before[listener].feed.stop_record() if listener in before else []
            after[listener].feed.release(record)
        for listener in gone:
            await new.stop_listening(after[listener].handle)

    async def _listen(self, listener: Listener, link: "Link") -> _Asked:
        feed = Feed(listener, held=link is not self.link)
        return _Asked(link, await link.listen(listener.subject, feed.deliver), feed)

    def _tell_denials(self) -> None:
        for subject in self.denied:
            refusal = self.link.denial(subject) if self.link is not None else None
            log.error("%s", SubscriptionDenied(subject, refusal or "no reason given"))
