"""One connection to one NATS server. When it ends, whoever owns it makes the next one."""

import asyncio
import logging
import re
import ssl
from dataclasses import replace

import anyio
from nats.aio.subscription import Subscription as NatsSubscription
from nats.errors import Error, FlushTimeoutError, StaleConnectionError

from ...domain.errors import BusLoginRefused, BusUnavailable
from .client import VIOLATION, Deliver, LinkClient
from .servers import Server
from .signing import Signer

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 2  # nats.go's default, for each step of the login
_LOGIN_S = 10.0  # all steps together
PING_S = 30  # two unanswered ones end the link: a dead route is noticed within 90 s
FLUSH_S = 5  # LocalAI's bound of the flush behind a subscription
BUFFER_BYTES = 8 * 1024 * 1024  # nats.go's default for what may wait to be sent
_END_S = 1.0

# What a server says to a login it does not take, or takes no longer.
_REFUSALS = ("authorization violation", "user authentication expired", "user authentication revoked")
_DENIED = re.compile(VIOLATION + r' for subscription to "(?P<subject>[^"]*)"')


class LinkLost(Exception):
    """The link ended before the call was done; whoever owns it connects again."""


class Link:
    """A logged-in connection. `ended` is set once it can carry nothing more, whatever the reason."""

    def __init__(self, server: Server, client: LinkClient, signer: Signer | None) -> None:
        self.server = server
        self.signer = signer
        self.ended = asyncio.Event()
        self._client = client
        self._denied: dict[str, str] = {}
        self._confirming: set[asyncio.Task[None]] = set()

    @property
    def max_payload_bytes(self) -> int:
        return self._client.max_payload

    @property
    def reason(self) -> str:
        """What ended the link, in the server's or the library's words."""
        return self._client.fatal_error or _reason(self._client.last_error or LinkLost("connection lost"))

    @property
    def login_refused(self) -> bool:
        """The server ended the link because it no longer takes the login."""
        return _is_refusal(self.reason)

    def discovered(self) -> tuple[Server, ...]:
        """The other servers of the cluster, as this one told; they take the same credentials."""
        found = self._client.discovered_servers
        return tuple(
            replace(self.server, host=uri.hostname, port=uri.port or self.server.port)
            for uri in found
            if uri.hostname
        )

    async def publish(self, subject: str, payload: bytes, reply_to: str = "") -> None:
        """Queue one message. With 8 MiB waiting, this waits too; after 5 s of that the link ends.

        Raises:
            LinkLost: the link has ended and the message was not queued, so it can go another way.
        """
        self.check_alive()
        try:
            await self._client.publish(subject, payload, reply=reply_to)
        except (Error, OSError) as error:
            self.end()
            raise LinkLost(_reason(error)) from error
        # The library's writer runs in a task of its own: give it its turn, or a tight loop only queues.
        await anyio.lowlevel.checkpoint()

    async def listen(self, subject: str, deliver: Deliver) -> NatsSubscription:
        """Ask the server for `subject`; `confirm` tells when it has answered."""
        self.check_alive()
        self._denied.pop(subject.lower(), None)
        try:
            return await self._client.listen(subject, deliver)
        except (Error, OSError) as error:
            self.end()
            raise LinkLost(_reason(error)) from error

    async def stop_listening(self, handle: NatsSubscription) -> None:
        """Tell the server; after the link's end there is nobody to tell."""
        if self.ended.is_set():
            return
        try:
            await handle.unsubscribe()
        except (Error, OSError) as error:
            log.debug("unsubscribe was cut short: %s", error)

    def denial(self, subject: str) -> str | None:
        """The server's refusal to let us listen on `subject`; it names subjects in lower case."""
        return self._denied.get(subject.lower())

    async def confirm(self) -> None:
        """Return when the server has handled everything sent so far, or the link has ended.

        A server that does not answer within 5 s ends the link.
        """
        # In a task of its own: a cancelled flush leaves a future behind at which the answer kills the reader.
        task = asyncio.create_task(self._round_trips())
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)
        if self.ended.is_set():
            task.cancel()
        await asyncio.wait({task})

    async def close(self) -> None:
        """Let go of the socket within a second; nothing is flushed."""
        self.end()
        with anyio.CancelScope(shield=True), anyio.move_on_after(_END_S):
            await self._client.end()

    async def on_error(self, error: Exception) -> None:
        """What nats-py has to say besides exceptions."""
        text = str(error)
        if denied := _DENIED.search(text.lower()):
            self._denied[denied["subject"]] = text
        if isinstance(error, FlushTimeoutError):
            self.end()
        level = logging.WARNING
        if VIOLATION in text.lower():
            level = logging.ERROR
        elif self.ended.is_set() or isinstance(error, StaleConnectionError):
            level = logging.DEBUG  # whoever owns the link tells that it has ended
        log.log(level, "message bus %s: %s", self.server, _reason(error))

    def check_alive(self) -> None:
        """Return while something can still come and go.

        Raises:
            LinkLost: the link has ended.
        """
        if self.ended.is_set():
            raise LinkLost(self.reason)

    def end(self) -> None:
        """Nothing more can come or go."""
        self.ended.set()
        for task in self._confirming:
            task.cancel()

    async def _round_trips(self) -> None:
        # nats-py writes a flush's PING past its own queue of commands. The first answer shows that the
        # queue had its turn, the second that the server has read it.
        try:
            await self._client.flush(FLUSH_S)
            await self._client.flush(FLUSH_S)
        except (Error, OSError) as error:
            log.warning("message bus %s does not answer: %s", self.server, _reason(error))
            self.end()


async def connect(server: Server, *, name: str, tls: ssl.SSLContext | None, signer: Signer | None) -> Link:
    """Log in at `server`; each step is bounded to 2 s, all to 10 s.

    A server that challenges its clients is shown the JWT of `signer`; any other the login of its address.

    With `tls`, or a server named `tls://`, nothing but the server's greeting passes in the clear.

    Raises:
        BusLoginRefused: the server does not take the login this time (`retrying`).
        BusUnavailable: it did not work this time (`retrying`).
    """
    client = LinkClient(force_tls=tls is not None or server.wants_tls)
    link = Link(server, client, signer)
    client.on_end = link.end
    logged_in = False

    async def on_error(error: Exception) -> None:
        if not logged_in:
            raise error  # nats-py would try again by itself, for ever and out of our sight
        await link.on_error(error)

    try:
        with anyio.fail_after(_LOGIN_S):
            await client.connect(
                servers=[server.url],
                user=server.user,
                password=server.password,
                token=server.token,
                user_jwt_cb=signer.jwt if signer else None,
                signature_cb=signer.signature if signer else None,
                name=name or None,
                tls=tls,
                error_cb=on_error,
                allow_reconnect=False,
                connect_timeout=CONNECT_TIMEOUT_S,
                ping_interval=PING_S,
                max_outstanding_pings=2,
                pending_size=BUFFER_BYTES,
                flush_timeout=FLUSH_S,
            )
        if not client.is_connected:
            raise ConnectionResetError("the server hung up during the login")  # noqa: TRY301 - same report
    except Exception as error:  # nats-py lets through whatever its transport, TLS or the JSON reader raise
        reason = _reason(error)
        kind = BusLoginRefused if _is_refusal(reason) else BusUnavailable
        raise kind(str(server), reason, retrying=True) from error
    else:
        logged_in = True
        return link
    finally:
        if not logged_in:
            logged_in = True  # from here on errors are only logged
            await link.close()


def _is_refusal(reason: str) -> bool:
    return any(refusal in reason.lower() for refusal in _REFUSALS)


def _reason(error: BaseException) -> str:
    """A line for people: some exceptions say nothing but their type."""
    if isinstance(error, TimeoutError) and not str(error):
        return "timed out"
    return str(error) or type(error).__name__
