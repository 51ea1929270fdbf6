"""Enrolment: making the node known to the frontend, and leaving in good order."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import anyio

from .errors import FrontendRefused, FrontendUnavailable, WorkerError
from .leave import Departure
from .messages.node_status import LoadedModel
from .messages.registration import Heartbeat, RegisterReply, RegisterRequest
from .node import NodeId
from .node_identity import IdentityStore, NodeIdentity
from .node_report import NodeProfile, heartbeat, registration
from .outcome_log import OutcomeLog
from .ports.filesystem import DiskSpace, FileSystem
from .ports.frontend import FrontendClient
from .ports.hardware import Hardware, HardwareProbe

log = logging.getLogger(__name__)

PENDING = "pending"

_HEALTHY = "healthy"
_FIRST_BACKOFF_S = 2.0  # doubling up to the cap; LocalAI core/cli/workerregistry/client.go
_BACKOFF_CAP_S = 30.0
# Refusals that no retry can mend: they name something the operator has to change.
_FINAL_STATUSES = frozenset({400, 401, 403})


@dataclass(eq=False)
class NotRegistered(WorkerError):
    """The frontend did not take the node in."""

    attempts: int
    last: WorkerError

    def __str__(self) -> str:
        return f"failed to register with the frontend after {self.attempts} attempt(s): {self.last}"


@dataclass(eq=False)
class NotEnough(WorkerError):
    """The frontend took the node in, but did not give what the worker needs."""

    reason: str

    def __str__(self) -> str:
        return self.reason


Enough = Callable[[RegisterReply], str]
"""What is missing in an answer to a registration; "" for nothing."""


def _anything(_reply: RegisterReply) -> str:
    return ""


def _exactly(pause_s: float) -> float:
    return pause_s


@dataclass
class Enrolment:
    """Registers and leaves. One instance per worker; `node_id` is known after `register`.

    `capability` maps a reading of the hardware to LocalAI's capability string; `busy` tells whether
    requests are being served here, as far as this machine can see. `identities` keeps who the node is for
    the next start, until it leaves; `frontend_url` tells which frontend that was. `spread` lengthens a
    pause by chance, so that a fleet does not call in one beat.
    Source: LocalAI core/cli/worker.go, core/cli/workerregistry/client.go.
    """

    frontend: FrontendClient
    hardware: HardwareProbe
    filesystem: FileSystem
    profile: NodeProfile
    capability: Callable[[Hardware], str]
    busy: Callable[[], Awaitable[bool]]
    attempts: int = 10
    drain_s: float = 30.0
    identities: IdentityStore | None = None
    frontend_url: str = ""
    spread: Callable[[float], float] = _exactly
    registered: RegisterReply | None = None
    _registering: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def node_id(self) -> NodeId:
        """The id of this node; only after `register`."""
        assert self.registered is not None
        return NodeId(self.registered.id)

    @property
    def worries(self) -> tuple[str, ...]:
        """What keeps work away from this node, as far as the frontend's answers tell; one line each."""
        if self.registered is None:
            return ("not registered with the frontend yet",)
        return ("waiting for an admin's approval",) if self.registered.status == PENDING else ()

    async def register(self, lacks: Enough = _anything) -> NodeId:
        """Make the node known, with retries: 2 s, doubling to 30 s, `attempts` in all.

        An answer that `lacks` something is a failure too, but not while the node is pending: its approval
        is awaited for as long as it takes. 400, 401 and 403 end at once (upstream retries them too): no
        waiting makes a wrong token right.

        Raises:
            NotRegistered: with the last answer.
        """
        backoff_s = _FIRST_BACKOFF_S
        attempt = 1
        while True:
            try:
                await self._register_enough(lacks)
            except (FrontendUnavailable, FrontendRefused, NotEnough) as error:
                final = isinstance(error, FrontendRefused) and error.status in _FINAL_STATUSES
                if final or attempt == self.attempts:
                    raise NotRegistered(attempt, error) from error
                log.warning(
                    "registration failed: attempt=%d/%d retry_in_s=%g error=%s",
                    attempt,
                    self.attempts,
                    backoff_s,
                    error,
                )
                waits = isinstance(error, NotEnough) and self.registered and self.registered.status == PENDING
                attempt = attempt if waits else attempt + 1
                await anyio.sleep(self.spread(backoff_s))
                backoff_s = min(backoff_s * 2, _BACKOFF_CAP_S)
            else:
                return self.node_id

    async def register_again(self) -> NodeId:
        """Register for as long as it takes: a worker that runs does not end because a frontend is away.

        Returns the id the node had before. If two ask for it at once, one registration does for both.
        """
        before = self.registered
        async with self._registering:
            if before is not None and self.registered is not before:
                return NodeId(before.id)
            old = self.node_id
            outcome = OutcomeLog("registrations", log)
            backoff_s = _FIRST_BACKOFF_S
            while True:
                try:
                    await self._register_once()
                except (FrontendUnavailable, FrontendRefused) as error:
                    outcome.failed("registering again failed", error, logging.ERROR)
                    await anyio.sleep(self.spread(backoff_s))
                    backoff_s = min(backoff_s * 2, _BACKOFF_CAP_S)
                else:
                    break
        outcome.worked()
        log.warning(
            "registered again: node=%s before=%s; the frontend has dropped its rows of the models that run "
            "here, and finds their processes again as it installs them",
            self.node_id,
            old,
        )
        return old

    async def drain(self) -> None:
        """Ask for no new work and wait, `drain_s` seconds at most, until nothing is in flight.

        A pending node skips it: draining would erase "pending", and the next register would make the node
        healthy without an approval (H-17).
        """
        if self.registered is None or self.registered.status == PENDING:
            return
        if self.identities is not None:
            await self.identities.forget()  # first: whoever starts after this must register
        await self._departure().drain()

    async def deregister(self) -> None:
        """Leave the frontend; a pending node skips it, as in `drain`."""
        if self.registered is None or self.registered.status == PENDING:
            return
        await self._departure().deregister()

    async def request(self) -> RegisterRequest:
        """The registration body with the hardware as it is now."""
        hardware = await self._read_hardware()
        return registration(self.profile, hardware, await self._disk(), self.capability(hardware))

    async def heartbeat(self) -> Heartbeat:
        """One heartbeat body with fresh readings."""
        return heartbeat(await self._read_hardware(), await self._disk())

    async def rows(self) -> tuple[LoadedModel, ...] | None:
        """The models that the frontend has in its books for this node; None where it does not tell."""
        try:
            return await self.frontend.loaded_models(self.node_id)
        except (FrontendUnavailable, FrontendRefused) as error:
            log.debug("cannot ask what is loaded: error=%s", error)
            return None

    async def ask_for_approval(self) -> bool:
        """Find out whether a pending node is approved by now; whether that took a registration.

        Rows of models tell that it is. Without any a registration tells, and drops nothing; a node that is
        still pending stays so.
        """
        assert self.registered is not None
        rows = await self.rows()
        if rows is None:
            return False
        if rows:
            self.registered = replace(self.registered, status=_HEALTHY)
            await self._keep_identity(await self.request(), self.registered)
            if self.identities is not None:
                await self.identities.approved(_HEALTHY)
        else:
            try:
                await self._register_enough(_anything)
            except (FrontendUnavailable, FrontendRefused) as error:
                log.debug("cannot ask whether this node is approved: error=%s", error)
                return False
        if self.registered.status != PENDING:
            log.info("this node is approved: node=%s", self.node_id)
        return not rows

    async def _register_enough(self, lacks: Enough) -> None:
        async with self._registering:
            await self._register_once()
        assert self.registered is not None
        if missing := lacks(self.registered):
            raise NotEnough(missing)

    async def _register_once(self) -> None:
        request = await self.request()
        was_pending = self.registered is not None and self.registered.status == PENDING
        self.registered = await self.frontend.register(request)
        await self._keep_identity(request, self.registered)
        pending = self.registered.status == PENDING
        level = logging.DEBUG if pending and was_pending else logging.INFO
        log.log(level, "registered: node=%s status=%s", self.registered.id, self.registered.status)
        if pending and not was_pending:
            log.warning("this node waits for an admin's approval; the frontend sends no work until then")

    async def _keep_identity(self, request: RegisterRequest, reply: RegisterReply) -> None:
        if self.identities is not None:
            await self.identities.save(NodeIdentity.of(self.frontend_url, request, reply))

    def _departure(self) -> Departure:
        return Departure(self.frontend, self.node_id, self.busy, self.drain_s)

    async def _read_hardware(self) -> Hardware:
        hardware = await self.hardware.read()
        for warning in hardware.warnings:
            log.warning("hardware probe: %s", warning)
        return hardware

    async def _disk(self) -> DiskSpace | None:
        return await self.filesystem.space(self.profile.models_path)
