"""How the simulated frontend reaches machines besides the bus: gRPC to backends, files to workers."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import anyio

from ....adapters.memory.backend_client import InMemoryBackendClient
from ....adapters.memory.frontend_nodes import Generation
from ....domain.errors import BackendUnavailable, WorkerError
from ....domain.ports.backend_client import ModelToLoad
from ....domain.receive_files import ReceiveFiles
from .fence import Fenced
from .host import Host
from .life import Life
from .plan import TOKEN

_CHUNK_BYTES = 100


@dataclass(eq=False)
class WrongModel(WorkerError):
    """Another model answers at the address than the one asked for; newer frontends check that."""

    address: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.address} answers for {self.found or 'no model'}, not for {self.wanted}"


@dataclass(eq=False)
class FilesNotSent(WorkerError):
    """The worker's file server broke off."""

    host: str
    why: str

    def __str__(self) -> str:
        return f"sending files to {self.host}: {self.why}"


@dataclass(frozen=True)
class FleetInference:
    """`InferenceClient` towards every machine of the fleet; loading and answering take their time."""

    hosts: dict[str, Host]
    random: Random

    async def health(self, address: str, *, timeout_s: float) -> None:
        await self._client(address).health(address, timeout_s=timeout_s)

    async def free(self, address: str, *, timeout_s: float) -> None:
        await self._client(address).free(address, timeout_s=timeout_s)

    async def load_model(self, address: str, model: ModelToLoad, *, timeout_s: float) -> None:
        await anyio.sleep(self.random.uniform(1, 20))
        await self._client(address).load_model(address, model, timeout_s=timeout_s)
        name, _, port = address.rpartition(":")
        if process := self.hosts[name].process_on(int(port)):
            process.print(f"loaded {model.name}\n")

    async def embed(self, address: str, text: str, *, timeout_s: float) -> tuple[float, ...]:
        """`text` is the model that is wanted: a backend with another one must not answer for it."""
        await anyio.sleep(self.random.uniform(0.1, 3))
        client = self._client(address)
        listener = client.machine.listener(int(address.rpartition(":")[2]))
        if listener is not None and listener.model is not None and listener.model.name != text:
            raise WrongModel(address, text, listener.model.name)
        return await client.embed(address, "x", timeout_s=timeout_s)

    def _client(self, address: str) -> InMemoryBackendClient:
        host = self.hosts.get(address.rpartition(":")[0])
        if host is None:
            raise BackendUnavailable(address, "UNAVAILABLE", "no such host")
        return InMemoryBackendClient(host.machine, TOKEN)


@dataclass(frozen=True)
class FleetFiles:
    """Sends model files as the HTTP stager does: ask for the hash, send what is missing, in parts."""

    life_on: Callable[[str], Life | None]
    random: Random

    async def ensure(self, host: str, key: str, content: bytes, generation: Generation) -> str:
        """Have the worker on `host` hold `content` under `key`; its path there. Only newer frontends go on
        where an earlier attempt ended.

        Raises:
            FilesNotSent: it does not.
        """
        life = self.life_on(host)
        if life is None or life.fence.down:
            raise FilesNotSent(host, "connection refused")
        try:
            return await self._send(life.worker.files, key, content, resumes=generation == "newer")
        except Fenced as error:
            raise FilesNotSent(host, "connection reset by peer") from error
        except WorkerError as error:
            raise FilesNotSent(host, str(error)) from error

    async def _send(self, files: ReceiveFiles, key: str, content: bytes, *, resumes: bool) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        probed = await files.probe(key)
        if probed is not None and probed.sha256 == sha256:
            return str(probed.path)
        held = probed.size_bytes if resumes and probed is not None and probed.target_sha256 == sha256 else 0
        span = f"bytes {held}-{len(content) - 1}/{len(content)}" if resumes else None
        upload = await files.receive(key, declared_sha256=sha256, content_range=span)
        if isinstance(upload, Path):
            return str(upload)
        try:
            for start in range(held, len(content), _CHUNK_BYTES):
                await anyio.sleep(self.random.uniform(0.1, 5))
                await upload.write(content[start : start + _CHUNK_BYTES])
            return str(await upload.finish())
        except BaseException:
            await upload.abort()
            raise
        finally:
            files.ended(upload)


def model_file(model: str, version: int = 0) -> bytes:
    """The content of a model's file: nothing of it fits another model or version, nor a part of it itself."""
    name = f"{model}/{version}" if version else model
    return b"".join(hashlib.sha256(f"{name}/{part}".encode()).digest() for part in range(8))
