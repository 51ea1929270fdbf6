"""nats-py's client, made fit for a single life.

nats-py reconnects by itself, but not after every failure: an `-ERR` closes it for good, an exception in
its reader (text that is no UTF-8, a late PONG) leaves it deaf but "connected", and a failed clean-up
leaves tasks behind. So it is used with reconnecting off, and says when its life is over.
"""

import logging
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.subscription import Subscription as NatsSubscription
from nats.errors import SecureConnWantedError

from ...domain.ports.bus import BusMessage

log = logging.getLogger(__name__)

VIOLATION = "permissions violation"  # as the library lower-cases it
_NO_RESPONDERS = b"NATS/1.0 503"  # the header of the server's "nobody listens" answer

Deliver = Callable[[BusMessage, bool], None]
"""Called with each message in order, and whether it is the server's "nobody listens" answer."""


class LinkClient(Client):
    """nats-py's client with some of its inner steps replaced; the contract test pins them."""

    def __init__(self, *, force_tls: bool) -> None:
        super().__init__()
        self.on_end: Callable[[], None] = lambda: None
        self.fatal_error = ""  # the server's last word; the library forgets it over the hang-up behind it
        self._force_tls = force_tls
        self._routes: dict[int, Deliver] = {}

    async def listen(self, subject: str, deliver: Deliver) -> NatsSubscription:
        self._routes[self._sid + 1] = deliver  # the number that `subscribe` takes next
        return await self.subscribe(subject)

    async def end(self) -> None:
        try:
            await self.close()
        except OSError as error:
            log.debug("closing was cut short: %s", error)
        finally:
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]  # nats-py leaves it untyped

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._routes.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _read_loop(self) -> None:
        try:
            await super()._read_loop()
        finally:
            self.on_end()

    async def _process_err(self, err_msg: str) -> None:
        if VIOLATION not in err_msg:
            self.fatal_error = err_msg
        await super()._process_err(err_msg)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and self._force_tls:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise SecureConnWantedError  # before the credentials went out
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        if sid not in self._subs or sid not in self._routes:
            return
        message = BusMessage(subject.decode(errors="replace"), data, reply.decode(errors="replace"))
        self._routes[sid](message, not data and (headers or b"").startswith(_NO_RESPONDERS))
