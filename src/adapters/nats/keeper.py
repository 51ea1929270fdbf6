"""Keeps one bus connected: connections come and go, listeners and waiting messages stay."""

import asyncio
import logging
from typing import TYPE_CHECKING

import anyio

from ...domain.errors import BusUnavailable, PayloadTooLarge
from .connector import Connector
from .listeners import Listeners
from .outbox import Outbox, Outgoing

if TYPE_CHECKING:
    from .link import Link

log = logging.getLogger(__name__)

LOGIN_S = 60.0  # what a move to a new login may take: connecting, and five round trips of 10 s at most
MAX_PAYLOAD_BYTES = 1024 * 1024  # NATS' default, until a server has told its own


class Keeper:
    """What outlives connections.

    `ready` is set while there is one that has every subscription, and nothing waits to be sent.
    """

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.listeners = Listeners()
        self.outbox = Outbox()
        self.max_payload_bytes = MAX_PAYLOAD_BYTES
        self._moves: asyncio.Queue[asyncio.Event] = asyncio.Queue()  # each is set when it is over

    @property
    def connected(self) -> bool:
        link = self.listeners.link
        return self.ready.is_set() and link is not None and not link.ended.is_set()

    async def run(self, connector: Connector) -> None:
        """Make connections and use them, until cancelled.

        Raises:
            BusLoginRefused: as `Connector.connect`.
        """
        while True:
            link: Link | None = await connector.connect()
            while link is not None:
                link = await self._serve(link, connector)

    async def move(self) -> None:
        """Move to a connection of the new login; return when that is over, whatever came of it."""
        if self.listeners.link is None:  # the next connection has it anyway
            return
        over = asyncio.Event()
        self._moves.put_nowait(over)
        with anyio.move_on_after(LOGIN_S):
            await over.wait()

    async def send(self, message: Outgoing) -> bool:
        """Send now, or keep for the next connection; False if there is no room for that."""
        from .link import LinkLost

        link = self.listeners.link
        if link is not None and self.ready.is_set():
            try:
                await link.publish(message.subject, message.payload, message.reply_to)
            except LinkLost:
                log.debug("kept for the next connection: a message on %s", message.subject)
            else:
                return True
        return self.outbox.put(message)

    def end(self) -> None:
        """Let everybody who listens or waits come to an end."""
        self.listeners.end()
        self._end_moves()
        self.outbox.clear()

    async def _serve(self, link: "Link", connector: Connector) -> "Link | None":
        """Use `link` until it ends, or until everything has moved to another, which is returned."""
        from .link import LinkLost

        successor: Link | None = None
        try:
            self.max_payload_bytes = link.max_payload_bytes
            if self.listeners.link is not link:
                await self.listeners.settle(link)
                log.info("message bus %s: connected", link.server)
            await self._send_waiting(link)
            self.ready.set()
            successor = await self._serve_until_moved(link, connector)
        except LinkLost:
            log.debug("message bus %s: lost while the connection was set up", link.server)
        finally:
            if successor is None:
                self.ready.clear()
                self.listeners.link = None
                self._end_moves()
            await link.close()
        if successor is None:
            log.warning("message bus %s: disconnected: %s", link.server, link.reason)
            connector.learn_from(link)
        return successor

    async def _serve_until_moved(self, link: "Link", connector: Connector) -> "Link | None":
        while True:
            move = asyncio.create_task(self._moves.get())
            ended = asyncio.create_task(link.ended.wait())
            try:
                await asyncio.wait({move, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                move.cancel()
                ended.cancel()
            if not move.done() or move.cancelled():
                return None
            try:
                if (successor := await self._move(link, connector)) is not None:
                    return successor
            finally:
                move.result().set()

    async def _move(self, link: "Link", connector: Connector) -> "Link | None":
        """Move everything to a connection of the new login; None where that fails."""
        from .link import LinkLost

        try:
            successor = await connector.connect_beside(link)
        except BusUnavailable as error:
            log.error("message bus %s: the old login is kept while it lasts: %s", link.server, error)
            return None
        try:
            await self.listeners.move(successor)
        except LinkLost as error:
            log.error("message bus %s: the new login was lost again: %s", link.server, error)
        finally:
            if self.listeners.link is not successor:
                await successor.close()
        if self.listeners.link is not successor:
            return None
        log.info("message bus %s: moved to the new login", successor.server)
        return successor

    def _end_moves(self) -> None:
        """Without a connection nothing moves; the next one has the new login anyway."""
        while not self._moves.empty():
            self._moves.get_nowait().set()

    async def _send_waiting(self, link: "Link") -> None:
        while self.outbox:
            message = self.outbox.first()
            if len(message.payload) > link.max_payload_bytes:  # it came while another server's limit held
                error = PayloadTooLarge(message.subject, len(message.payload), link.max_payload_bytes)
                log.error("dropped: %s", error)
            else:
                await link.publish(message.subject, message.payload, message.reply_to)
            self.outbox.drop_first()
