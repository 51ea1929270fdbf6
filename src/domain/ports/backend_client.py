"""The gRPC side of a backend: what the worker asks of it, and what a frontend does."""

from dataclasses import dataclass
from typing import Protocol


class BackendClient(Protocol):
    """The two calls the worker makes. `address` is `host:port`; every call carries the registration token."""

    async def health(self, address: str, *, timeout_s: float) -> None:
        """Return when the backend answers `OK`.

        Raises:
            BackendUnhealthy: it answers something else.
            BackendUnavailable: no answer in `timeout_s` seconds, or an RPC error (with its code's name).
        """

    async def free(self, address: str, *, timeout_s: float) -> None:
        """Ask the backend to let go of its model; whatever Result it gives counts as done.

        Raises:
            BackendUnavailable: as in `health`; code `UNIMPLEMENTED` is normal, many backends lack it.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelToLoad:
    """What LoadModel tells a backend.

    `file` is the path of the model on the worker, `name` the relative name it goes by; the backend gets
    `file` minus its `name` suffix as ModelPath. Source: LocalAI pkg/grpc, backend.proto ModelOptions.
    """

    name: str
    file: str
    tokenizer: str = ""

    @property
    def directory(self) -> str:
        """ModelPath: the directory that relative names of this model resolve against."""
        return self.file.removesuffix(self.name).rstrip("/") or "/"


class InferenceClient(BackendClient, Protocol):
    """What a frontend calls besides: the simulator uses it."""

    async def load_model(self, address: str, model: ModelToLoad, *, timeout_s: float) -> None:
        """Load `model`.

        Raises:
            ModelLoadFailed: the backend says why.
            BackendUnavailable: as in `health`.
        """

    async def embed(self, address: str, text: str, *, timeout_s: float) -> tuple[float, ...]:
        """The embedding vector of `text`.

        Raises:
            BackendUnavailable: as in `health`; code `FAILED_PRECONDITION` when no model is loaded.
        """
