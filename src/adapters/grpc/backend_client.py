"""`InferenceClient` over gRPC; grpcio is loaded by the first call, off the event loop."""

import importlib
from dataclasses import dataclass, field
from types import ModuleType

from anyio import to_thread

from ...domain.errors import BackendUnhealthy, ModelLoadFailed
from ...domain.ports.backend_client import ModelToLoad

_CALLS = f"{__package__}.calls"
_loaded: list[ModuleType] = []


@dataclass(frozen=True)
class GrpcBackendClient:
    """Calls a LocalAI backend; `token` goes along as bearer metadata on every call when it is not empty."""

    token: str = field(default="", repr=False)

    async def health(self, address: str, *, timeout_s: float) -> None:
        message = await (await _calls()).health(address, self.token, timeout_s=timeout_s)
        if message != b"OK":
            raise BackendUnhealthy(address, message.decode(errors="replace"))

    async def free(self, address: str, *, timeout_s: float) -> None:
        await (await _calls()).free(address, self.token, timeout_s=timeout_s)

    async def load_model(self, address: str, model: ModelToLoad, *, timeout_s: float) -> None:
        refusal = await (await _calls()).load_model(address, self.token, model, timeout_s=timeout_s)
        if refusal is not None:
            raise ModelLoadFailed(address, refusal)

    async def embed(self, address: str, text: str, *, timeout_s: float) -> tuple[float, ...]:
        vector: tuple[float, ...] = await (await _calls()).embed(
            address, self.token, text, timeout_s=timeout_s
        )
        return vector


async def _calls() -> ModuleType:
    """The module `calls`: loaded once in a thread, as it takes a tenth of a second.

    `sys.modules` would show it to a second caller while the first one still loads it.
    """
    if not _loaded:
        _loaded.append(await to_thread.run_sync(importlib.import_module, _CALLS))
    return _loaded[0]
