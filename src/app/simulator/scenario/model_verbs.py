"""Verbs about models and their files: what users of the frontend would do."""

import hashlib
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from ....domain.node import NodeId
from ..failures import SimulationError
from ..live import LiveFrontend, Replica
from ..model_options import ModelSpec
from ..object_staging import ObjectStager
from ..staging import HttpStager
from .verbs import verb


@dataclass
class ModelVerbs:
    """Files are named relative to the frontend's models directory."""

    live: LiveFrontend

    @verb
    async def files(self, files: Mapping[str, Any]) -> object:
        """Make the frontend's files: `{bytes: N, seed: S}`, `{text: T}`, null removes one; their hashes."""
        await anyio.lowlevel.checkpoint()
        return {name: self._make(name, content) for name, content in files.items()}

    @verb
    async def model(
        self,
        name: str,
        backend: str,
        options: Mapping[str, Any] | None = None,
        selector: Mapping[str, str] | None = None,
        vram: int = 0,
        min_replicas: int = 0,
        max_replicas: int = 0,
    ) -> object:
        """Have a model in the frontend's configuration; `options` are the fields of LoadModel."""
        await anyio.lowlevel.checkpoint()
        spec = ModelSpec(
            name=name, backend=backend, options=options or {}, selector=selector or {}, size_bytes=vram
        )
        self.live.know(spec, min_replicas=int(min_replicas), max_replicas=int(max_replicas))
        return {"name": name}

    @verb
    async def load(self, model: str, node: str = "", replica: int | None = None, backend: str = "") -> object:
        """Load a model on a node, or where it fits; with `backend` it is configured first."""
        if backend:
            await self.model(model, backend)
        index = None if replica is None else int(replica)
        return self._told(await self.live.load(model, self._id(node), index))

    @verb
    async def route(self, model: str) -> object:
        """The replica that answers the next request; it is loaded if there is none."""
        return self._told(await self.live.route(model))

    @verb
    async def infer(
        self, model: str, rpc: str = "Predict", fields: Mapping[str, Any] | None = None
    ) -> object:
        """One inference request through the router; the fields of the answer."""
        answer = await self.live.infer(model, rpc, fields or {})
        return {key: _read(value) if key in {"message", "result"} else value for key, value in answer.items()}

    @verb
    async def embed(self, model: str, text: str) -> object:
        """The embedding of a text."""
        answer = await self.live.infer(model, "Embedding", {"Embeddings": text})
        return {"dimensions": len(answer["embeddings"])}

    @verb
    async def call(self, address: str, rpc: str, fields: Mapping[str, Any] | None = None) -> object:
        """Call a backend at its address, past the router."""
        answer = await self.live.rpc(address, rpc, fields or {}, timeout_s=30)
        return {key: _read(value) if key == "message" else value for key, value in answer.items()}

    @verb
    async def stop(self, model: str) -> object:
        """Stop a model wherever it is loaded."""
        return {"nodes": [self._name(node) for node in await self.live.stop(model)]}

    @verb
    async def evict(self, model: str, node: str, replica: int = 0) -> object:
        """Make room: the row goes, the memory is freed, nothing is stopped."""
        await self.live.evict(model, (self._required(node), int(replica)))
        return {}

    @verb
    async def delete_model(self, model: str) -> object:
        """Have the files of a model removed from the nodes that have it loaded."""
        return {"nodes": [self._name(node) for node in await self.live.delete_model(model)]}

    @verb
    async def replicas(self, model: str) -> object:
        """Where a model is loaded on healthy nodes, and its requests in flight."""
        await anyio.lowlevel.checkpoint()
        return [
            {"node": self._name(place[0]), "replica": place[1], "in_flight": row.in_flight}
            for place, row in self.live.cluster.replicas(model)
        ]

    @verb
    async def busy(self, model: str, node: str, requests: int, replica: int = 0) -> object:
        """Make a replica look as if so many more requests were in flight."""
        await anyio.lowlevel.checkpoint()
        registry = self.live.commands.registry
        registry.add_in_flight(self._required(node), model, int(requests), replica_index=int(replica))
        return {}

    @verb
    async def unused(self, model: str, node: str, seconds: float, replica: int = 0) -> object:
        """Make a replica look as if nobody had asked it anything for so many seconds."""
        await anyio.lowlevel.checkpoint()
        place = (self._required(node), int(replica))
        self.live.cluster.used(model, place, anyio.current_time() - float(seconds))
        return {}

    @verb
    async def stage(self, node: str, key: str, file: str) -> object:
        """Bring one file to the node under a staging key; its path there."""
        stager = self.live.commands.stager_for(self._required(node))
        try:
            return {"local_path": await stager.ensure(self.live.models / file, key)}
        finally:
            await stager.close()

    @verb
    async def put_object(self, key: str, file: str) -> object:
        """Store a file of the frontend in the object store, whatever is there (only with `storage: s3`)."""
        nodes = list(self.live.commands.registry.nodes)
        stager = self.live.commands.stager_for(nodes[0]) if nodes else None
        if not isinstance(stager, ObjectStager):
            raise SimulationError("there is no object store; a scenario asks for one with `storage: s3`")
        await stager.put(self.live.models / file, key)
        return {}

    @verb
    async def fetch(self, node: str, key: str) -> object:
        """The hash and size of a file of the node, fetched over HTTP."""
        stager = self._http(node)
        target = self.live.models / ".fetched"
        try:
            size_bytes = await stager.fetch(key, target)
            return {"size": size_bytes, "sha256": _sha256(target)}
        finally:
            await stager.close()
            target.unlink(missing_ok=True)

    @verb
    async def ls(self, node: str, prefix: str) -> object:
        """The files below a directory of the node."""
        stager = self._http(node)
        try:
            return {"files": list(await stager.list_dir(prefix))}
        finally:
            await stager.close()

    def _make(self, name: str, content: Any) -> str:
        path = self.live.models / name
        if content is None:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            return ""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content(name, content))
        return _sha256(path)

    def _told(self, replica: Replica) -> dict[str, object]:
        return {
            "node": self._name(replica.place[0]),
            "replica": replica.place[1],
            "address": replica.address,
            "model_path": replica.model_path,
            "key": replica.key,
        }

    def _http(self, node: str) -> HttpStager:
        row = self.live.commands.registry.row(self._required(node))
        return HttpStager(row.http_address, self.live.commands.token, self.live.commands.registry.generation)

    def _id(self, node: str) -> NodeId | None:
        return self._required(node) if node else None

    def _required(self, node: str) -> NodeId:
        row = self.live.commands.registry.named(node)
        if row is None:
            raise SimulationError(f"node {node} is not registered")
        return row.id

    def _name(self, node_id: NodeId) -> str:
        return self.live.commands.registry.row(node_id).name


def _content(name: str, content: Any) -> bytes:
    if isinstance(content, Mapping) and "text" in content:
        return str(content["text"]).encode()
    if isinstance(content, Mapping) and "bytes" in content:
        source = random.Random(f"{name}{content.get('seed', 0)}")  # noqa: S311 - made-up content
        return source.randbytes(int(content["bytes"]))
    raise SimulationError(f"file {name}: {{bytes: N}}, {{text: T}} or null is wanted, not {content!r}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(value: object) -> object:
    """A text that is a JSON object as that object: the playable backend answers so."""
    import json

    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
