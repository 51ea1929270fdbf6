"""Commands about models and their replicas: what runs, stop one, free the memory, delete the files."""

import logging
from dataclasses import dataclass

import anyio

from ...domain.addresses import NodeAddresses
from ...domain.backend import MalformedReplicaKey, ReplicaKey
from ...domain.delete_model import DeleteModel
from ...domain.end_replica import Stopped
from ...domain.errors import BackendUnavailable, WorkerError
from ...domain.messages.model import (
    ModelDeleteReply,
    ModelDeleteRequest,
    ModelsRunningReply,
    ModelStopReply,
    ModelStopRequest,
    ModelUnloadReply,
    ModelUnloadRequest,
    RunningModel,
)
from ...domain.process_table import RunningReplica
from ...domain.stop_group import StopLadder
from ...domain.supervise import Supervisor

log = logging.getLogger(__name__)

_UNLOAD_FREE_S = 5.0
# The frontend waits 10 s for model.stop: Free, grace and the time after KILL are 9 s together, and a
# stop that somebody else began is waited for half a second longer (N-B14).
_STOP_FREE_S = 3.0
_STOP_GRACE_S = 4.0
_STOP_KILL_S = 2.0
_STOP_ANSWER_S = 9.5


@dataclass(eq=False)
class AddressMismatch(WorkerError):
    """The frontend means a process that no longer runs: another one has its key now."""

    key: ReplicaKey
    recorded: str
    expected: str

    def __str__(self) -> str:
        return (
            f'address mismatch for process {self.key}: recorded "{self.recorded}", expected "{self.expected}"'
        )


@dataclass(eq=False)
class StillStopping(WorkerError):
    """A stop that began earlier has not ended yet; asking again is safe."""

    key: ReplicaKey

    def __str__(self) -> str:
        return f"process {self.key} is already stopping"


@dataclass
class ModelCommands:
    """Handles requests about models; every one answers within the frontend's limit."""

    supervisor: Supervisor
    addresses: NodeAddresses
    files: DeleteModel

    async def running(self, _asked: None) -> ModelsRunningReply:
        """What is up and not being stopped, straight from the process table."""
        models = tuple(
            RunningModel(
                model_id=replica.key.model,
                replica_index=replica.key.replica,
                address=self.addresses.advertised(replica.port),
            )
            for replica in self.supervisor.replicas
        )
        return ModelsRunningReply(models=models)

    async def stop(self, request: ModelStopRequest) -> ModelStopReply:
        """Stop exactly one replica, if it is still the one that the frontend knows.

        Source: LocalAI core/services/worker/supervisor.go, model.stop.
        """
        try:
            key = ReplicaKey.parse(request.process_key)
        except MalformedReplicaKey:
            key = None  # no process has such a key
        port = self.supervisor.table.port_of(key) if key else None
        if key is None or port is None:
            return ModelStopReply(
                matched=False, freed=False, terminated=True, process_key=request.process_key
            )
        address = self.addresses.advertised(port)
        try:
            if request.expected_address and not self.addresses.means(request.expected_address, port):
                raise AddressMismatch(key, address, request.expected_address)
            stopped = await self._stop(key, force=request.force)
        except WorkerError as error:
            log.warning("model.stop failed: replica=%s error=%s", key, error)
            return ModelStopReply.failed(str(error), process_key=request.process_key, address=address)
        return ModelStopReply(
            matched=True,
            freed=stopped.freed,
            terminated=True,
            process_key=request.process_key,
            address=address,
            error=f"freeing process {key}: {stopped.free_error}" if stopped.free_error else "",
        )

    async def _stop(self, key: ReplicaKey, *, force: bool) -> Stopped:
        ladder = StopLadder(min(self.supervisor.ladder.grace_s, _STOP_GRACE_S), _STOP_KILL_S)
        with anyio.move_on_after(_STOP_ANSWER_S):
            stopped = await self.supervisor.stop(key, force=force, free_s=_STOP_FREE_S, ladder=ladder)
            return stopped or Stopped(key)
        raise StillStopping(key)

    async def unload(self, request: ModelUnloadRequest) -> ModelUnloadReply:
        """Free the replicas of one model side by side; their processes stay.

        `model_name` names the model or one replica (`model#N`), and `address`, where there is one, only
        the replica at it. Without such a replica there is nothing to free: success.
        """
        replicas = self._meant(request)
        log.info("unload: model=%s replicas=%s", request.model_name, [str(each.key) for each in replicas])
        failures: list[str] = []

        async def free(replica: RunningReplica) -> None:
            try:
                await self.supervisor.free(replica.key, timeout_s=_UNLOAD_FREE_S)
            except BackendUnavailable as error:
                # Many backends have no Free, and a process that is gone holds no memory.
                if error.code != "UNIMPLEMENTED" and replica in self.supervisor.replicas:
                    failures.append(f"freeing process {replica.key}: {error}")

        async with anyio.create_task_group() as calls:
            for replica in replicas:
                calls.start_soon(free, replica)
        return (
            ModelUnloadReply.failed("; ".join(sorted(failures)))
            if failures
            else ModelUnloadReply(success=True)
        )

    async def delete(self, request: ModelDeleteRequest) -> ModelDeleteReply:
        """Delete the files that were staged for a model."""
        await self.files.delete(request.model_name)
        return ModelDeleteReply(success=True)

    def _meant(self, request: ModelUnloadRequest) -> tuple[RunningReplica, ...]:
        if not (request.model_name or request.address):
            return ()
        return tuple(
            replica
            for replica in self.supervisor.replicas
            if (not request.model_name or replica.key.matches(request.model_name))
            and (not request.address or self.addresses.means(request.address, replica.port))
        )
