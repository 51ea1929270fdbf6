"""Makes connections: one server after the other, for as long as it takes, with the login of the moment."""

import logging
import ssl
from typing import TYPE_CHECKING

import anyio

from ...domain.bus_credentials import BusCredentials
from ...domain.errors import BusLoginRefused, BusUnavailable
from .pool import SPREAD, TLS_SPREAD, ServerPool
from .servers import Server

if TYPE_CHECKING:
    from .link import Link
    from .signing import Signer

log = logging.getLogger(__name__)


_REMINDER_S = 600.0


class Connector:
    """Logs in at one of `servers`. `refused`: the last server that answered did not take our login."""

    def __init__(
        self, servers: tuple[Server, ...], *, name: str, tls: ssl.SSLContext | None, retry_s: float
    ) -> None:
        self.refused = False
        self._name = name
        self._tls = tls
        self._retry_s = retry_s
        encrypted = tls is not None or any(server.wants_tls for server in servers)
        self._pool = ServerPool(servers, retry_s=retry_s, spread=TLS_SPREAD if encrypted else SPREAD)
        self._signer: Signer | None = None
        self._woken = anyio.Event()
        self._was_connected = False
        self._told: dict[Server, tuple[str, float]] = {}  # the reason and when it was told

    def use(self, credentials: BusCredentials) -> None:
        """Log in with `credentials` from now on; who waits to try again tries at once."""
        from .signing import signer

        self._signer = signer(credentials)
        self.refused = False
        self._woken.set()
        self._woken = anyio.Event()

    async def connect(self) -> "Link":
        """A logged-in connection, however long it takes.

        Raises:
            BusLoginRefused: the very first server that answers wants a login, and we have none.
        """
        while True:
            server, at_s = self._pool.next(now_s=anyio.current_time())
            with anyio.CancelScope(deadline=at_s):
                await self._woken.wait()
            try:
                return await self._attempt(server)
            except BusLoginRefused as error:
                if self._signer is None and not server.has_login and not self._was_connected:
                    raise BusLoginRefused(
                        error.servers, f"it wants one, and none is set: {error.reason}"
                    ) from error
                self._tell(server, error)
            except BusUnavailable as error:
                self._tell(server, error)

    async def connect_beside(self, link: "Link") -> "Link":
        """Another connection to the server of `link`, in one attempt.

        Raises:
            BusUnavailable: it did not work.
        """
        return await self._attempt(link.server)

    def learn_from(self, ended: "Link") -> None:
        """Keep what a connection that has ended told: why, and the other servers of its cluster."""
        self._pool.learn(ended.discovered())
        self._pool.lost()
        if ended.login_refused and ended.signer is self._signer:
            self.refused = True

    async def _attempt(self, server: Server) -> "Link":
        from .link import connect  # nats-py is loaded by those who use it

        try:
            link = await connect(server, name=self._name, tls=self._tls, signer=self._signer)
        except BusLoginRefused:
            self.refused = True
            raise
        self.refused, self._was_connected = False, True
        self._told.clear()
        return link

    def _tell(self, server: Server, error: BusUnavailable) -> None:
        """Warn of a failed attempt; of one more for the same reason only now and then."""
        now_s = anyio.current_time()
        reason, told_s = self._told.get(server, ("", 0.0))
        again = reason == error.reason and now_s < told_s + _REMINDER_S
        if not again:
            self._told[server] = error.reason, now_s
        log.log(logging.DEBUG if again else logging.WARNING, "%s every %g s", error, self._retry_s)
