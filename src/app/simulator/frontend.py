"""A frontend as a worker sees it: it plays one, over whatever bus, gRPC client and stager it is given.

Sources: LocalAI core/services/nodes/router.go, core/config/distributed_config.go; the timeouts are theirs.
"""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from ...adapters.filesystem.ranged_files import LocalRangedFiles
from ...domain.errors import NoResponders
from ...domain.galleries import Gallery
from ...domain.messages.backend import (
    BackendInstallReply,
    BackendInstallRequest,
    BackendStopRequest,
)
from ...domain.messages.backend_list import BackendListReply, NodeBackendInfo
from ...domain.messages.subjects import NodeSubjects
from ...domain.messages.writing import EMPTY_REQUEST, NO_BODY
from ...domain.node import NodeId
from ...domain.ports.backend_client import InferenceClient, ModelToLoad
from ...domain.ports.object_store import ObjectStore
from ...domain.ports.ranged_files import RangedFiles
from .failures import CommandRefused, NodeNotThere
from .gallery_json import galleries_json
from .node_commands import NodeCommands
from .object_staging import ObjectStager
from .placements import Placement
from .staging import HttpStager, Stager

SEED_INSTALL_S = 5 * 60.0
NEWER_INSTALL_S = 15 * 60.0
LIST_S = 30.0
SEED_LOAD_S = 5 * 60.0
NEWER_LOAD_S_PER_GIB = 20.0  # on top of the seed's, by the size of the staged files
NEWER_LOAD_CAP_S = 6 * 3600.0
EMBED_S = 10 * 60.0  # upstream's ends with the user's request
NODE_S = 60.0

_POLL_S = 0.05


@dataclass(kw_only=True)
class SimulatedFrontend(NodeCommands):
    """Sends workers commands, as a frontend of its registry's generation does.

    A command raises what the bus raises, MalformedMessage for an answer that is none, and CommandRefused
    with the worker's text. `stager` makes the stager for a node's `http_address`; with an `object_store`
    files go through that instead. `ranged` are the frontend's own files. `exchanges` are the latest bus
    messages, oldest first.
    """

    inference: InferenceClient
    token: str = field(default="", repr=False)
    stager: Callable[[str], Stager] | None = None
    object_store: ObjectStore | None = None
    ranged: RangedFiles = field(default_factory=LocalRangedFiles)
    _staged_bytes: dict[tuple[str, str], int] = field(default_factory=dict)  # by node and model

    async def wait_for_node(self, name: str, status: str = "healthy", *, timeout_s: float = NODE_S) -> NodeId:
        """The id of the node called `name`, as soon as it has `status`.

        Raises:
            NodeNotThere: not within `timeout_s` seconds.
        """
        found = ""
        with anyio.move_on_after(timeout_s):
            while True:
                row = self.registry.named(name)
                found = row.status.value if row else ""
                if row and found == status:
                    return row.id
                await anyio.sleep(_POLL_S)
        raise NodeNotThere(name, status, found, timeout_s)

    async def wait_until_it_answers(self, node_id: NodeId, *, timeout_s: float = NODE_S) -> None:
        """Return once the node takes commands: it can subscribe only when its registration has told its id.

        Raises:
            NoResponders: it does not within `timeout_s` seconds.
        """
        until_s = anyio.current_time() + timeout_s
        while True:
            try:
                await self.list_backends(node_id)
            except NoResponders:
                if anyio.current_time() >= until_s:
                    raise
                await anyio.sleep(_POLL_S)
            else:
                return

    async def install(
        self,
        node_id: NodeId,
        backend: str,
        *,
        model_id: str = "",
        galleries: Sequence[Gallery] = (),
        replica_index: int = 0,
        uri: str = "",
        name: str = "",
        alias: str = "",
        force: bool = False,
        op_id: str = "",
    ) -> str:
        """Have the backend installed and started; the address to dial.

        Without `galleries` the request says that there are none, which outdoes the worker's own. A
        success without an address means the node's own address.

        Raises:
            ValueError: a seed frontend knows no `replica_index`, `force` or `op_id`.
        """
        if self._is_seed and (replica_index or force or op_id):
            raise ValueError("a seed frontend sends no replica_index, force or op_id")
        subject = NodeSubjects(node_id).install
        request = BackendInstallRequest(
            backend=backend,
            model_id=model_id,
            backend_galleries=galleries_json(galleries),
            uri=uri,
            name=name,
            alias=alias,
            replica_index=replica_index,
            force=force,
            op_id=op_id,
        )
        timeout_s = SEED_INSTALL_S if self._is_seed else NEWER_INSTALL_S
        answer = await self._request(subject, request.to_wire(), timeout_s=timeout_s)
        reply = BackendInstallReply.from_wire(answer)
        if not reply.success:
            raise CommandRefused(subject, reply.error)
        address = reply.address or self.registry.row(node_id).address
        self._placements.put(address, Placement(node_id, model_id or backend, replica_index, backend))
        return address

    async def stop(self, node_id: NodeId, backend: str = "", *, force: bool = False) -> None:
        """Have the processes of a model, a replica (`model#N`) or a backend stopped; all without a name.

        Nobody answers; the rows of the model go at once.

        Raises:
            ValueError: a seed frontend cannot force.
        """
        if self._is_seed and force:
            raise ValueError("a seed frontend sends no force")
        request = BackendStopRequest(backend=backend, force=force)
        await self._publish(NodeSubjects(node_id).stop, request.to_wire())
        self._placements.stopped(node_id, backend)

    async def list_backends(self, node_id: NodeId) -> tuple[NodeBackendInfo, ...]:
        """What the node has installed."""
        subject = NodeSubjects(node_id).list
        reply = BackendListReply.from_wire(await self._request(subject, EMPTY_REQUEST, timeout_s=LIST_S))
        if reply.error:
            raise CommandRefused(subject, reply.error)
        return reply.backends

    async def node_stop(self, node_id: NodeId) -> None:
        """Have the worker shut down; nobody answers."""
        await self._publish(NodeSubjects(node_id).node_stop, NO_BODY)

    async def stage_model(
        self, node_id: NodeId, tracking_key: str, files: Mapping[str, Path]
    ) -> dict[str, str]:
        """Bring `files` (path relative to the models directory -> local file) to the node, in order.

        Returns where each lies there; all are below `models/<tracking_key>/`.

        Raises:
            FileUnreadable: of a local file.
            StagingFailed: or another error of the stager; what was staged before it stays.
        """
        stager = self.stager_for(node_id)
        remote: dict[str, str] = {}
        staged_bytes = 0
        try:
            for relative, source in files.items():
                key = posixpath.normpath(f"models/{tracking_key}/{relative}")
                remote[relative] = await stager.ensure(source, key)
                staged_bytes += source.stat().st_size
        finally:
            with anyio.CancelScope(shield=True):
                await stager.close()
        self._staged_bytes[node_id, tracking_key] = staged_bytes
        return remote

    def stager_for(self, node_id: NodeId) -> Stager:
        """A stager for the node's files; the caller closes it."""
        if self.object_store is not None:
            return self.object_stager(node_id, self.object_store)
        return (self.stager or self._http_stager)(self.registry.row(node_id).http_address)

    def object_stager(self, node_id: NodeId, store: ObjectStore) -> ObjectStager:
        """The stager through `store`."""
        return ObjectStager(store, self.ranged, NodeSubjects(node_id), self._request)

    async def load_model(self, address: str, model: ModelToLoad) -> None:
        """Have the backend at `address` load `model`, and note its row: one request is reserved for it.

        Raises:
            ModelLoadFailed, BackendUnavailable: as the gRPC client; no row is made, nothing is stopped.
        """
        await self.inference.load_model(address, model, timeout_s=self.load_s(address))
        self.note_loaded(address)

    def note_loaded(self, address: str) -> None:
        """A model was loaded at `address`: note its row, with one request reserved for it."""
        self._placements.loaded(address)

    def in_flight(self, address: str) -> AbstractContextManager[None]:
        """Count a request to `address`; the first one after a load also ends the load's reservation."""
        return self._placements.in_flight(address)

    async def embed(self, address: str, text: str) -> tuple[float, ...]:
        """The embedding of `text`; it counts as in flight while it runs.

        The first one after a load also ends the load's reservation.

        Raises:
            BackendUnavailable: as the gRPC client.
        """
        with self.in_flight(address):
            return await self.inference.embed(address, text, timeout_s=EMBED_S)

    def _http_stager(self, http_address: str) -> HttpStager:
        return HttpStager(http_address, self.token, self.registry.generation)

    def load_s(self, address: str) -> float:
        """How long LoadModel at `address` may take, in seconds."""
        placed = self._placements.get(address)
        if self._is_seed or placed is None:
            return SEED_LOAD_S
        staged_bytes = self._staged_bytes.get((placed.node_id, placed.model), 0)
        return min(SEED_LOAD_S + NEWER_LOAD_S_PER_GIB * staged_bytes / 2**30, NEWER_LOAD_CAP_S)
