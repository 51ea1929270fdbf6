"""Inference as a frontend calls it: inputs brought to the node, results fetched back.

Source: LocalAI core/services/nodes (storage-and-frontend sheet 2.4).
"""

import posixpath
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .failures import SimulationError

INFERENCE_S = 10 * 60.0  # upstream's ends with the user's request

# Fields that name input files, by RPC; a list field may name several.
_INPUTS: Mapping[str, tuple[str, ...]] = {
    "Predict": ("Images", "Videos", "Audios"),
    "GenerateImage": ("src", "ref_images"),
    "GenerateVideo": ("start_image", "end_image"),
    "SoundGeneration": ("src",),
    "AudioTranscription": ("dst",),
}
_WITH_RESULT = frozenset({"GenerateImage", "GenerateVideo", "TTS", "SoundGeneration"})


class Rpc(Protocol):
    """Any unary RPC of a backend by its name."""

    async def __call__(
        self, address: str, rpc: str, fields: Mapping[str, object], *, timeout_s: float
    ) -> dict[str, Any]: ...


@runtime_checkable
class ResultStager(Protocol):
    """What a stager offers for inputs and results of a request."""

    async def ensure(self, source: Path, key: str) -> str: ...

    async def alloc_temp(self) -> str: ...

    async def fetch_result(self, remote_path: str, target: Path) -> None: ...


@dataclass(frozen=True)
class Inference:
    """One request to the backend at `address`; local files are named relative to `files`."""

    rpc: Rpc
    stager: ResultStager
    address: str
    model_path: str  # where the model's files lie on the node
    files: Path
    request_id: Callable[[], str] = lambda: str(uuid.uuid4())[:8]

    async def call(self, rpc: str, fields: Mapping[str, object], scratch: Path) -> dict[str, Any]:
        """The answer's fields; with a result also `result`, the file's text.

        Raises:
            WorkerError: staging or the call failed.
        """
        told = dict(fields)
        request = self.request_id()
        for name in _INPUTS.get(rpc, ()):
            if name in told:
                told[name] = await self._inputs(told[name], request)
        if rpc == "TTS" and "model" in told:
            told["model"] = posixpath.join(self.model_path, posixpath.basename(str(told["model"])))
        if rpc not in _WITH_RESULT:
            return await self.rpc(self.address, rpc, told, timeout_s=INFERENCE_S)
        there = told["dst"] = await self.stager.alloc_temp()
        answer = await self.rpc(self.address, rpc, told, timeout_s=INFERENCE_S)
        if not answer.get("success"):
            raise SimulationError(f"{rpc}: {answer.get('message')}")
        await self.stager.fetch_result(there, scratch)
        return {**answer, "result": scratch.read_text(errors="replace")}

    async def _inputs(self, value: object, request: str) -> object:
        """Paths on the node for the names of local files."""
        if isinstance(value, list):
            return [await self._inputs(each, request) for each in value]
        source = self.files / str(value)
        return await self.stager.ensure(source, f"ephemeral/inputs/{request}/{source.name}")
