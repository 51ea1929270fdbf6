"""Commands about backends: install, upgrade, stop, delete, list."""

import logging
from collections.abc import Collection
from dataclasses import dataclass

import anyio

from ...domain.addresses import NodeAddresses
from ...domain.backend import ReplicaKey
from ...domain.deaths import Deaths
from ...domain.delete_backend import DeleteBackend, DeletionFailed
from ...domain.errors import MalformedMessage, WorkerError
from ...domain.galleries import Gallery, parse_galleries
from ...domain.install import InstallBackends
from ...domain.install_progress import InstallStep, Listen, unheard
from ...domain.installed import InstalledBackends
from ...domain.messages.backend import (
    BackendDeleteReply,
    BackendDeleteRequest,
    BackendInstallReply,
    BackendInstallRequest,
    BackendStopRequest,
    BackendUpgradeReply,
    BackendUpgradeRequest,
)
from ...domain.messages.backend_list import BackendListReply, NodeBackendInfo
from ...domain.messages.backend_progress import InstallPhase
from ...domain.messages.subjects import NodeSubjects
from ...domain.ports.bus import MessageBus
from ...domain.replace_backend import ReplaceBackend, ReplacementFailed, WantedBackend
from ...domain.supervise import Supervisor
from .progress import progress_events

log = logging.getLogger(__name__)


@dataclass
class BackendCommands:
    """Handles requests about backends. `galleries` are the worker's own."""

    installer: InstallBackends
    installed: InstalledBackends
    supervisor: Supervisor
    deletion: DeleteBackend
    replacement: ReplaceBackend
    deaths: Deaths
    addresses: NodeAddresses
    galleries: tuple[Gallery, ...]
    bus: MessageBus

    async def install(self, subjects: NodeSubjects, request: BackendInstallRequest) -> BackendInstallReply:
        """Install what is missing, or with `force` anew, start it, and tell where it listens.

        A request with an `op_id` is followed by progress events while it runs.
        """
        if not request.op_id:
            return await self._install(request, unheard)
        async with progress_events(
            self.bus, subjects, op_id=request.op_id, backend=request.backend or request.name
        ) as events:
            reply = await self._install(request, events.listen)
            if reply.success:
                events.succeeded()
            return reply

    async def _install(self, request: BackendInstallRequest, listen: Listen) -> BackendInstallReply:
        log.info(
            "install: backend=%s model=%s replica=%d force=%s",
            request.backend,
            request.model_id,
            request.replica_index,
            request.force,
        )
        model = request.model_id or request.backend
        wanted = self._wanted(request)
        if request.force:
            own = ReplicaKey(model, request.replica_index) if model else None
            try:
                backend = (await self.replacement.replace(wanted, own, listen)).backend
            except ReplacementFailed as error:
                log.warning("install failed: backend=%s error=%s", request.backend, error)
                return BackendInstallReply.failed(str(error))
        else:
            backend = await self.installer.ensure(
                backend=wanted.backend,
                galleries=wanted.galleries,
                uri=wanted.uri,
                name=wanted.name,
                alias=wanted.alias,
                listen=listen,
            )
        listen(InstallStep(InstallPhase.STARTING, backend.name))
        key = ReplicaKey(model or backend.name, request.replica_index)
        port = await self.supervisor.start(key, backend, await self.installed.identity(backend.name))
        died = self.deaths.untold(key)
        return BackendInstallReply(
            success=True,
            address=self.addresses.advertised(port),
            previous_death=str(died) if died else "",
        )

    async def upgrade(self, subjects: NodeSubjects, request: BackendUpgradeRequest) -> BackendUpgradeReply:
        """Stop the backend's processes and install it anew; nothing is started. Events as for an install."""
        if not request.op_id:
            return await self._upgrade(request, unheard)
        async with progress_events(
            self.bus, subjects, op_id=request.op_id, backend=request.backend or request.name
        ) as events:
            reply = await self._upgrade(request, events.listen)
            if reply.success:
                events.succeeded()
            return reply

    async def _upgrade(self, request: BackendUpgradeRequest, listen: Listen) -> BackendUpgradeReply:
        log.info("upgrade: backend=%s", request.backend)
        wanted = self._wanted(request)
        has_key = request.backend and request.replica_index >= 0
        own = ReplicaKey(request.backend, request.replica_index) if has_key else None
        try:
            replaced = await self.replacement.replace(wanted, own, listen)
        except ReplacementFailed as error:
            why = error.during("upgrade")
            log.warning("upgrade failed: backend=%s error=%s", request.backend, why)
            return BackendUpgradeReply.failed(why, stopped=_texts(error.stopped))
        return BackendUpgradeReply.succeeded(stopped=_texts(replaced.stopped))

    async def stop(self, payload: bytes) -> None:
        """Stop the processes that a name means, or all; nobody hears how it went."""
        try:
            request = BackendStopRequest.from_wire(payload)
        except MalformedMessage as error:
            log.warning("backend.stop ignored: %s", error)  # never stop everything for a typo (N-B31)
            return
        if request.stops_all:
            log.info("stop all backends: force=%s", request.force)
            await self.supervisor.stop_all(force=request.force)
            return
        begun: set[ReplicaKey] = set()

        async def stop_one(key: ReplicaKey) -> None:
            try:
                await self.supervisor.stop(key, force=request.force)
            except WorkerError as error:
                log.error("stop failed: replica=%s error=%s", key, error)

        async with anyio.create_task_group() as stops:

            def begin(keys: Collection[ReplicaKey]) -> None:
                log.info("stop: backend=%s replicas=%s", request.backend, [str(key) for key in keys])
                for key in keys:
                    begun.add(key)
                    stops.start_soon(stop_one, key)

            # What the name means by itself stops before anything is waited for: an install that was sent
            # after this stop must not be handed the process.
            begin(self.supervisor.table.keys_of(request.backend))
            identity = await self.installed.identity(request.backend)
            if also := set(self.supervisor.table.keys_of(request.backend, identity)) - begun:
                begin(also)

    async def delete(self, request: BackendDeleteRequest) -> BackendDeleteReply:
        """Stop the backend's processes and delete its files; the reply names the dead also on a failure."""
        log.info("delete: backend=%s", request.backend)
        try:
            stopped = await self.deletion.delete(request.backend)
        except DeletionFailed as error:
            log.warning("delete failed: backend=%s error=%s", request.backend, error)
            return BackendDeleteReply.failed(str(error), stopped=_texts(error.stopped))
        return BackendDeleteReply.succeeded(stopped=_texts(stopped))

    async def list(self, _asked: None) -> BackendListReply:
        """What is installed, aliases left out."""
        rows = tuple(
            NodeBackendInfo(
                name=row.name,
                is_system=row.is_system,
                is_meta=row.is_meta,
                installed_at=row.metadata.installed_at,
                gallery_url=row.metadata.gallery_url,
                version=row.metadata.version,
                uri=row.metadata.uri,
                digest=row.metadata.digest,
            )
            for row in await self.installed.rows()
        )
        return BackendListReply(backends=rows)

    def _wanted(self, request: BackendInstallRequest | BackendUpgradeRequest) -> WantedBackend:
        """The request's galleries replace ours when there are any; unreadable ones fail the request."""
        text = request.backend_galleries
        return WantedBackend(
            backend=request.backend,
            galleries=parse_galleries(text) if text else self.galleries,
            uri=request.uri,
            name=request.name,
            alias=request.alias,
        )


def _texts(keys: tuple[ReplicaKey, ...]) -> tuple[str, ...]:
    return tuple(map(str, keys))
