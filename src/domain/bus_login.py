"""The login at the message bus: where it comes from, in which order a node comes in, and when it is renewed.

A newer frontend mints a node's NATS credentials as it registers, for a day. Asking for fresh ones is
registering again, and that drops the frontend's rows of what runs here: so it is done late, at a moment at
which it costs least.
"""

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import anyio

from .bus_credentials import BusCredentials, WrongCredentials
from .enrol import PENDING, Enrolment
from .errors import BusLoginRefused, BusUnavailable, NoResponders, RequestTimedOut
from .heartbeats import Moved
from .messages.registration import RegisterReply
from .messages.subjects import NodeSubjects
from .node import NodeId
from .ports.bus import MessageBus
from .ports.clock import Clock

log = logging.getLogger(__name__)

_TWIN_ANSWERS_S = 1.0
_POLL_S = 30.0  # also upstream's pause after a refresh that failed
_SHORTEST_POLL_S = 1.0
_POLLS_IN_A_LIFE = 40  # a JWT of minutes is watched more closely than one of a day
_WINDOW_OPENS = 0.75  # of the lifetime; LocalAI core/cli/workerregistry/credentials.go renews then
_LATEST_S = 600.0  # before the end, or a tenth of the lifetime where that is less: time for a few tries


@dataclass(frozen=True, slots=True)
class Validity:
    """When credentials should be renewed: at no cost from `free_from`, idle from `idle_from`, at `latest`."""

    free_from: datetime
    idle_from: datetime
    latest: datetime
    lifetime_s: float

    @classmethod
    def of(cls, credentials: BusCredentials, taken_at: datetime) -> "Validity | None":
        """What credentials taken into use at `taken_at` have; None for those that never end."""
        if credentials.expires_at is None:
            return None
        lifetime = max(credentials.expires_at - taken_at, timedelta())
        latest = credentials.expires_at - min(timedelta(seconds=_LATEST_S), lifetime / 10)
        free_from = taken_at + lifetime * _WINDOW_OPENS
        return cls(free_from, free_from + (latest - free_from) / 2, latest, lifetime.total_seconds())


@dataclass
class BusLogin:
    """Brings the bus up under the right login and keeps the login good. One per worker.

    `fixed` is the operator's own pair, never renewed. `required`: no connection without credentials.
    """

    bus: MessageBus
    enrolment: Enrolment
    clock: Clock
    fixed: BusCredentials | None = None
    required: bool = False
    _minted: BusCredentials | None = None
    _validity: Validity | None = None
    _adopted: anyio.Event = field(default_factory=anyio.Event)
    _registering: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def by_frontend(self) -> bool:
        """The login in use is one that the frontend minted, for this node id only."""
        return self._minted is not None

    @property
    def worries(self) -> tuple[str, ...]:
        """What is wrong with the login and with what it may do; one line each."""
        refused = ("the NATS server refuses the login",) if self.bus.login_refused else ()
        return (*refused, *(f"the NATS server denies the subject {subject}" for subject in self.bus.denied))

    async def enter(self) -> NodeId:
        """Connect the bus and make the node known; the node id.

        With a login of its own, or where none is needed, the bus comes first: a router may pick a node the
        moment it is known (H-20). Where the frontend mints the login, the registration comes first.

        Raises:
            NotRegistered: the frontend did not take the node in, or gave no credentials where they are
                needed.
            BusUnavailable: the bus cannot be opened at all.
        """
        if self.fixed is not None:
            await self.bus.login(self.fixed)
        elif self.enrolment.registered is not None:
            await self.adopt()
        elif self.required:
            await self._register_for_credentials()
        async with anyio.create_task_group() as tasks:
            if self.fixed is None:
                tasks.start_soon(self._mend_while_opening)
            await self._open()
            tasks.cancel_scope.cancel()
        if self.enrolment.registered is None:
            await self.enrolment.register()
            await self.adopt()
        await self._look_for_a_twin()
        return self.enrolment.node_id

    async def adopt(self) -> None:
        """Log in with what the latest registration brought, if it brought something."""
        if self.fixed is not None or self.enrolment.registered is None:
            return
        try:
            credentials = credentials_of(self.enrolment.registered)
        except WrongCredentials as error:
            log.error("the frontend's NATS credentials are unusable, going on without: %s", error)
            return
        if credentials is None:
            return
        self._minted = credentials
        self._adopted.set()
        self._validity = Validity.of(credentials, self.clock.now())
        await self.bus.login(credentials)

    async def keep(self, moved: Moved) -> None:
        """Renew minted credentials before they end, or when the server refuses them, until cancelled.

        `moved` is awaited after each registration; it calls `adopt`. A renewal that fails is tried again
        for as long as it takes: what runs here goes on serving meanwhile.
        """
        await self._adopted.wait()
        while True:
            await anyio.sleep(self._poll_s())
            if reason := await self._reason_to_renew():
                log.info("renewing the NATS credentials: %s", reason)
                old = await self.enrolment.register_again()
                await moved(old, self.enrolment.node_id)

    async def _look_for_a_twin(self) -> None:
        """Tell if somebody answers as this node already: the name is the identity (H-24).

        A JWT may not publish such a question, and whoever may not is told nothing, so silence proves nothing.
        """
        if self.fixed is not None or self.by_frontend:
            return
        node_id = self.enrolment.node_id
        try:
            await self.bus.request(NodeSubjects(node_id).models_running, b"{}", timeout_s=_TWIN_ANSWERS_S)
        except (NoResponders, RequestTimedOut, BusUnavailable):
            return
        log.error(
            "another worker answers as node %s: both are called %s, overwrite each other's addresses and "
            "obey every command; give each its own LOCALAI_NODE_NAME, unless the other is just leaving",
            node_id,
            self.enrolment.profile.name,
        )

    async def _open(self) -> None:
        try:
            await self.bus.open()
        except BusLoginRefused as error:
            if self.fixed is not None:
                raise
            log.warning("%s; asking the frontend for a login", error)
            async with self._registering:
                await self._register_for_credentials()
            await self.bus.open()

    async def _mend_while_opening(self) -> None:
        """While the server refuses the login that we have, see whether the frontend has a better one."""
        while True:
            await anyio.sleep(_POLL_S)
            async with self._registering:
                if self.bus.login_refused:
                    await self._register_for_credentials()

    async def _register_for_credentials(self) -> None:
        await self.enrolment.register(_lacking)
        await self.adopt()

    async def _reason_to_renew(self) -> str:
        """Why it is time; "" while it is not."""
        if self.bus.login_refused:
            return "the NATS server refuses them"
        if self._validity is None:
            return ""
        now = self.clock.now()
        if now >= self._validity.latest:
            return "they are about to end"
        if now < self._validity.free_from or await self.enrolment.busy():
            return ""
        rows = await self.enrolment.rows()
        if rows == ():
            return "they end soon, and the frontend has nothing in its books here"
        if now >= self._validity.idle_from and rows and not sum(row.in_flight for row in rows):
            return "they end soon, and nothing is in flight"
        return ""

    def _poll_s(self) -> float:
        if self._validity is None:
            return _POLL_S
        return max(min(_POLL_S, self._validity.lifetime_s / _POLLS_IN_A_LIFE), _SHORTEST_POLL_S)


def credentials_of(reply: RegisterReply) -> BusCredentials | None:
    """The NATS credentials in an answer to a registration; None where it has none.

    Raises:
        WrongCredentials: half a pair, or no credentials at all in what is there.
    """
    if not reply.nats_jwt and not reply.nats_user_seed:
        return None
    return BusCredentials.parse(reply.nats_jwt, reply.nats_user_seed)


def _lacking(reply: RegisterReply) -> str:
    """What a worker that needs credentials misses in `reply`."""
    try:
        found = credentials_of(reply)
    except WrongCredentials as error:
        return f"the frontend's NATS credentials are unusable: {error}"
    if found is not None:
        return ""
    if reply.status == PENDING:
        return "NATS credentials come only with an admin's approval"
    return "the frontend gives no NATS credentials; set LOCALAI_NATS_ACCOUNT_SEED there, or a login here"
