"""What a frontend stages before LoadModel, and what it then tells the backend.

Source: LocalAI core/services/nodes/router.go (storage-and-frontend sheet 2.3).
"""

import logging
import os.path
import posixpath
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...domain.errors import WorkerError

log = logging.getLogger(__name__)

_FILES = ("MMProj", "LoraAdapter", "DraftModel", "CLIPModel", "Tokenizer", "AudioPath")
_PAIRS = ("Options", "Overrides")  # lists of `key:value`
_SIDECARS = (".sha256", ".sha256.target")

Send = Callable[[Path, str], Awaitable[str]]
"""Brings a local file to the node under a staging key; returns its path there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model as the frontend's configuration knows it.

    `name` is the id it is tracked by, `backend` what runs it, `options` the fields of LoadModel as
    configured: file fields are paths relative to the frontend's models directory.
    """

    name: str
    backend: str
    options: Mapping[str, object] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)  # labels its node must have
    size_bytes: int = 0  # of graphics memory it needs, as estimated; 0 is unknown


@dataclass
class ModelStaging:
    """Brings the files of one model to one node by `send`; `models` is the frontend's models directory."""

    models: Path
    spec: ModelSpec
    send: Send
    directories: bool = True  # a seed frontend cannot stage directories

    async def stage(self) -> dict[str, object]:
        """The fields for LoadModel, with paths on the node.

        Raises:
            WorkerError: the model file cannot be brought there; others are cleared or dropped instead.
        """
        told = dict(self.spec.options)
        if model_file := str(told.get("ModelFile", "")):
            told["ModelFile"] = await self._bring(model_file)
            told["ModelPath"] = _without_suffix(str(told["ModelFile"]), str(told.get("Model", "")))
        for name in _FILES:
            if value := str(told.get(name, "")):
                told[name] = await self._try(value) or ""
        if adapters := told.get("LoraAdapters"):
            brought = [await self._try(str(each)) for each in _list(adapters)]
            told["LoraAdapters"] = [each for each in brought if each]
        for name in _PAIRS:
            for pair in _list(told.get(name, ())):
                value = str(pair).partition(":")[2]
                if value and (self.models / value).exists():
                    await self._try(value)  # the text stays: the backend resolves it against ModelPath
        return told

    async def _try(self, relative: str) -> str | None:
        try:
            return await self._bring(relative) or None
        except WorkerError as error:
            log.warning("not staged: model=%s file=%s error=%s", self.spec.name, relative, error)
            return None

    async def _bring(self, relative: str) -> str:
        """The path on the node; "" for a file the frontend does not have."""
        source = self.models / relative
        if source.is_dir() and self.directories:
            return await self._bring_directory(source)
        if not source.exists():
            return ""
        there = await self.send(source, self._key(source))
        companion = source.with_name(f"{source.name}.json")
        if source.suffix == ".onnx" and companion.is_file():
            try:
                await self.send(companion, self._key(companion))
            except WorkerError as error:
                log.warning("not staged: model=%s file=%s error=%s", self.spec.name, companion.name, error)
        return there

    async def _bring_directory(self, source: Path) -> str:
        there = ""
        for path in _files_in(source):
            below = path.relative_to(source).as_posix()
            there = _without_suffix(await self.send(path, self._key(path)), below)
        return there

    def _key(self, source: Path) -> str:
        """`models/<name>/<path below the models directory>`, or its base name when it lies outside."""
        relative = Path(os.path.relpath(source, self.models)).as_posix()
        if relative.startswith(".."):
            relative = source.name
        return posixpath.normpath(f"models/{self.spec.name}/{relative}")


def _files_in(directory: Path) -> Iterator[Path]:
    """Every file below, in order, without the hash files beside them."""
    for path in sorted(directory.rglob("*")):
        beside = next((path.name.removesuffix(end) for end in _SIDECARS if path.name.endswith(end)), None)
        if path.is_file() and not (beside and path.with_name(beside).exists()):
            yield path


def _without_suffix(path: str, suffix: str) -> str:
    return posixpath.normpath(path.removesuffix(suffix)) if suffix else path


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []
