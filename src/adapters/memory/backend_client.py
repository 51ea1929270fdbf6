"""`InferenceClient` towards the backends of an in-memory machine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from ...domain.errors import BackendUnavailable, BackendUnhealthy, ModelLoadFailed
from ...domain.ports.backend_client import ModelToLoad
from .backend import FakeBackend
from .machine import InMemoryMachine


@dataclass(frozen=True)
class InMemoryBackendClient:
    """Calls whoever listens on the port; `token` is the registration token every call carries."""

    machine: InMemoryMachine
    token: str = ""

    async def health(self, address: str, *, timeout_s: float) -> None:
        async with self._call(address, "health", timeout_s) as backend:
            if backend.health != "OK":
                raise BackendUnhealthy(address, backend.health)

    async def free(self, address: str, *, timeout_s: float) -> None:
        async with self._call(address, "free", timeout_s) as backend:
            if not backend.has_free:
                raise BackendUnavailable(address, "UNIMPLEMENTED", "Method not implemented!")
            backend.model = None
            backend.freed += 1

    async def load_model(self, address: str, model: ModelToLoad, *, timeout_s: float) -> None:
        async with self._call(address, "load_model", timeout_s) as backend:
            if backend.refuses_load:
                raise ModelLoadFailed(address, backend.refuses_load)
            backend.model = model

    async def embed(self, address: str, text: str, *, timeout_s: float) -> tuple[float, ...]:
        async with self._call(address, "embed", timeout_s) as backend:
            if backend.model is None:
                raise BackendUnavailable(address, "FAILED_PRECONDITION", "model not loaded")
            return backend.embed(text)

    @asynccontextmanager
    async def _call(self, address: str, name: str, timeout_s: float) -> AsyncIterator[FakeBackend]:
        await anyio.lowlevel.checkpoint()
        backend = self.machine.listener(int(address.rpartition(":")[2]))
        if backend is None:
            raise BackendUnavailable(address, "UNAVAILABLE", "connection refused")
        if backend.token and backend.token != self.token:
            raise BackendUnavailable(address, "UNAUTHENTICATED", "invalid token")
        if name in backend.hangs:
            await anyio.sleep(timeout_s)
            raise BackendUnavailable(address, "DEADLINE_EXCEEDED", "Deadline Exceeded")
        yield backend
