"""Enrolment: making the node known to the frontend, keeping it known, and leaving in good order."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from .errors import FrontendRefused, FrontendUnavailable, NodeForgotten, WorkerError
from .messages.registration import Heartbeat, RegisterReply, RegisterRequest
from .node import NodeId
from .node_identity import IdentityStore, NodeIdentity
from .outcome_log import OutcomeLog
from .ports.filesystem import DiskSpace, FileSystem
from .ports.frontend import FrontendClient
from .ports.hardware import Hardware, HardwareProbe

log = logging.getLogger(__name__)

PENDING = "pending"

_FIRST_BACKOFF_S = 2.0  # doubling up to the cap; LocalAI core/cli/workerregistry/client.go
_BACKOFF_CAP_S = 30.0
_DRAIN_POLL_S = 1.0
_FORGOTTEN_AFTER = 3  # heartbeats in a row that are answered with 404
# Refusals that no retry can mend: they name something the operator has to change.
_FINAL_STATUSES = frozenset({400, 401, 403})


@dataclass(eq=False)
class NotRegistered(WorkerError):
    """The frontend did not take the node in."""

    attempts: int
    last: WorkerError

    def __str__(self) -> str:
        return f"failed to register with the frontend after {self.attempts} attempt(s): {self.last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProfile:
    """What the operator said about this node; the hardware is read when it is needed.

    `address` and `http_address` are `host:port` as the frontend dials them; `labels` as configured.
    """

    name: str
    address: str
    http_address: str
    token: str
    labels: Mapping[str, str] = field(default_factory=dict)
    max_replicas_per_model: int = 1
    vram_budget: str = ""
    models_path: Path = Path("/")


@dataclass
class Enrolment:
    """Registers, beats and leaves. One instance per worker; `node_id` is known after `register`.

    `capability` maps a reading of the hardware to LocalAI's capability string; `busy` tells whether
    requests are being served here, as far as this machine can see. `identities` keeps who the node is for
    the next start, until it leaves; `frontend_url` tells which frontend that was.
    Source: LocalAI core/cli/worker.go, core/cli/workerregistry/client.go.
    """

    frontend: FrontendClient
    hardware: HardwareProbe
    filesystem: FileSystem
    profile: NodeProfile
    capability: Callable[[Hardware], str]
    busy: Callable[[], Awaitable[bool]]
    attempts: int = 10
    heartbeat_s: float = 10.0
    drain_s: float = 30.0
    identities: IdentityStore | None = None
    frontend_url: str = ""
    registered: RegisterReply | None = None

    @property
    def node_id(self) -> NodeId:
        """The id of this node; only after `register`."""
        assert self.registered is not None
        return NodeId(self.registered.id)

    async def register(self) -> NodeId:
        """Make the node known, with retries: 2 s, doubling to 30 s, `attempts` in all.

        400, 401 and 403 end at once (upstream retries them too): no waiting makes a wrong token right.

        Raises:
            NotRegistered: with the last answer.
        """
        backoff_s = _FIRST_BACKOFF_S
        for attempt in range(1, self.attempts + 1):
            try:
                return await self._register_once()
            except (FrontendUnavailable, FrontendRefused) as error:
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
                await anyio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, _BACKOFF_CAP_S)
        raise AssertionError("attempts is at least 1")

    async def _register_again(self) -> None:
        """Register for as long as it takes: a worker that runs does not end because a frontend is away."""
        old = self.node_id
        log.error("the frontend has forgotten node %s: registering again", old)
        outcome = OutcomeLog("registrations", log)
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                await self._register_once()
            except (FrontendUnavailable, FrontendRefused) as error:
                outcome.failed("registering again failed", error, logging.ERROR)
                await anyio.sleep(backoff_s)
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

    async def _register_once(self) -> NodeId:
        request = await self.request()
        self.registered = await self.frontend.register(request)
        if self.identities is not None:
            await self.identities.save(NodeIdentity.of(self.frontend_url, request, self.registered))
        log.info("registered: node=%s status=%s", self.registered.id, self.registered.status)
        if self.registered.status == PENDING:
            log.warning("this node waits for an admin's approval; the frontend sends no work until then")
        return self.node_id

    async def request(self) -> RegisterRequest:
        """The registration body with the hardware as it is now."""
        hardware = await self._read_hardware()
        disk = await self._disk()
        profile = self.profile
        slots = max(profile.max_replicas_per_model, 1)
        vram = hardware.total_vram_bytes
        return RegisterRequest(
            name=profile.name,
            address=profile.address,
            http_address=profile.http_address,
            token=profile.token,
            total_vram=vram,
            available_vram=vram if hardware.free_vram_bytes is None else hardware.free_vram_bytes,
            gpu_vendor=hardware.vendor,
            total_ram=hardware.ram.total_bytes if hardware.ram else None,
            available_ram=hardware.ram.available_bytes if hardware.ram else None,
            gpu_compute_capability=hardware.compute_capability,
            capability=self.capability(hardware),
            max_replicas_per_model=slots,
            total_disk=disk.total_bytes if disk else None,
            available_disk=disk.available_bytes if disk else None,
            vram_budget=profile.vram_budget,
            labels={**profile.labels, "node.replica-slots": str(slots)},
        )

    async def beat_forever(self, moved: Callable[[NodeId, NodeId], Awaitable[None]]) -> None:
        """Send a heartbeat at once and then every `heartbeat_s` seconds, until cancelled.

        A failed beat is logged and the next one tried: missing one costs nothing, the frontend gives a
        node 60 s. Three 404s in a row mean that the frontend has forgotten the node (one alone may be a
        hiccup of its database): the node registers again, as it is now, and `moved` is awaited with the old
        and the new id if they differ (H-18). The frontend then has no rows of what runs here; its next
        install of a model finds the process again.
        """
        outcome = OutcomeLog("heartbeats", log)
        forgotten = 0
        while True:
            try:
                await self.frontend.heartbeat(self.node_id, await self.heartbeat())
            except NodeForgotten as error:
                forgotten += 1
                how = f"heartbeat refused ({forgotten} of {_FORGOTTEN_AFTER})"
                outcome.failed(how, error, logging.WARNING)
            except FrontendRefused as error:
                forgotten = 0
                outcome.failed("heartbeat refused", error, logging.ERROR)
            except FrontendUnavailable as error:
                forgotten = 0
                outcome.failed("heartbeat missed", error, logging.WARNING)
            else:
                forgotten = 0
                outcome.worked()
            if forgotten == _FORGOTTEN_AFTER:
                forgotten = 0
                old = self.node_id
                await self._register_again()
                if self.node_id != old:
                    await moved(old, self.node_id)
            else:
                await anyio.sleep(self.heartbeat_s)

    async def heartbeat(self) -> Heartbeat:
        """One heartbeat body with fresh readings."""
        hardware = await self._read_hardware()
        disk = await self._disk()
        return Heartbeat(
            available_vram=hardware.free_vram_bytes if hardware.total_vram_bytes else None,
            available_ram=hardware.ram.available_bytes if hardware.ram else None,
            total_disk=disk.total_bytes if disk else None,
            available_disk=disk.available_bytes if disk else None,
        )

    async def drain(self) -> None:
        """Ask for no new work and wait, `drain_s` seconds at most, until nothing is in flight.

        Two must agree on that: the frontend by its rows, which newer ones delete as they drain (S-K15), and
        this machine by `busy`. A frontend that does not take the drain is not asked for its rows.

        A pending node skips it: draining would erase "pending", and the next register would make the node
        healthy without an approval (H-17).
        """
        if self.registered is None or self.registered.status == PENDING:
            return
        if self.identities is not None:
            await self.identities.forget()  # first: whoever starts after this must register
        draining = True
        try:
            await self.frontend.drain(self.node_id)
        except (FrontendUnavailable, FrontendRefused) as error:
            draining = False
            log.warning("drain failed, stopping without it: node=%s error=%s", self.node_id, error)
        lists = OutcomeLog("lists of models", log)
        with anyio.move_on_after(self.drain_s) as limit:
            while (draining and await self._in_flight(lists)) or await self.busy():
                await anyio.sleep(_DRAIN_POLL_S)
        if limit.cancelled_caught:
            log.warning("requests still in flight after %g s; stopping all the same", self.drain_s)

    async def deregister(self) -> None:
        """Mark the node offline, then draining: an offline node whose last beat is young is flipped back
        to healthy by the frontend's monitor, a draining one is left alone (H-16).
        """
        if self.registered is None or self.registered.status == PENDING:
            return
        try:
            await self.frontend.deregister(self.node_id)
            await self.frontend.drain(self.node_id)
        except (FrontendUnavailable, FrontendRefused) as error:
            log.warning("deregistration failed: node=%s error=%s", self.node_id, error)
        else:
            log.info("deregistered: node=%s", self.node_id)

    async def _in_flight(self, outcome: OutcomeLog) -> bool:
        try:
            rows = await self.frontend.loaded_models(self.node_id)
        except (FrontendUnavailable, FrontendRefused) as error:
            outcome.failed("cannot ask what is in flight, waiting", error, logging.WARNING)
            return True
        outcome.worked()
        return sum(row.in_flight for row in rows) > 0

    async def _read_hardware(self) -> Hardware:
        hardware = await self.hardware.read()
        for warning in hardware.warnings:
            log.warning("hardware probe: %s", warning)
        return hardware

    async def _disk(self) -> DiskSpace | None:
        return await self.filesystem.space(self.profile.models_path)
