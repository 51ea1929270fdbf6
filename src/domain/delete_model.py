"""Deleting a model's staged files: its directory, or the file of its name and what lies beside it."""

import logging
import posixpath
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import FileUnwritable, WorkerError
from .messages.error_text import go_quote
from .ports.filesystem import DirectoryEntry, FileKind, FileSystem, RootedPath

log = logging.getLogger(__name__)


@dataclass(eq=False)
class EmptyModelName(WorkerError):
    """A request that names no model."""

    def __str__(self) -> str:
        return "empty model name"


@dataclass(eq=False)
class ModelNameEscapes(WorkerError):
    """A model name that leads out of the models directory, or to the directory itself."""

    name: str

    def __str__(self) -> str:
        return f"model name {go_quote(self.name)} escapes models directory"


@dataclass(eq=False)
class ModelFilesRemain(WorkerError):
    """Some files of a model could not be removed; the others are gone."""

    failures: tuple[WorkerError, ...]

    def __str__(self) -> str:
        return f"removing model files: {'; '.join(map(str, self.failures))}"


@dataclass
class DeleteModel:
    """Removes what was staged for a model below `models_path`. Running processes are left alone.

    `cached`: where files that came through an object store lie, under the same names (S-K06).
    """

    filesystem: FileSystem
    models_path: Path
    cached: Path | None = None

    async def delete(self, name: str) -> None:
        """Remove the directory `name`, or else the file `name` and every `name.*` beside it.

        `name` may contain `/`; `..` is resolved by name alone, and what climbs out is refused even if it
        would come back. A link goes, what it points to stays.
        Directories called `name.*` are other models. Nothing there is a success.
        Source: LocalAI core/gallery/worker.go.

        Raises:
            EmptyModelName, ModelNameEscapes: nothing was touched.
            PathEscapes: a symlink on the way leads out of the models directory; nothing was touched.
            FileUnreadable: the directory that holds the model cannot be listed.
            ModelFilesRemain: something could not be removed; upstream only logs it (N-B21).
        """
        relative = _relative(name)
        holders = [
            holder
            for root in filter(None, (self.models_path, self.cached))
            if await self._is_there(holder := RootedPath(root, relative.parent))
        ]
        doomed: list[Path] = []
        for holder in holders:
            entries = await self.filesystem.list_directory(holder.path)
            doomed += [holder.path / entry.name for entry in _belonging(entries, relative.name)]
        failures: list[WorkerError] = []
        for path in doomed:
            try:
                await self.filesystem.remove_tree(path)
            except FileUnwritable as error:
                failures.append(error)
        if failures:
            raise ModelFilesRemain(tuple(failures))
        log.info("model deleted: name=%s removed=%s", name, [str(path) for path in doomed])

    async def _is_there(self, holder: RootedPath) -> bool:
        found = await self.filesystem.locate(holder)
        return found is not None and found.kind is FileKind.DIRECTORY


def _relative(name: str) -> PurePosixPath:
    if not name:
        raise EmptyModelName
    relative = posixpath.normpath(name.lstrip("/") or ".")  # a leading slash counts for nothing
    if relative in {".", ".."} or relative.startswith("../"):
        raise ModelNameEscapes(name)
    return PurePosixPath(relative)


def _belonging(entries: tuple[DirectoryEntry, ...], name: str) -> list[DirectoryEntry]:
    exact = [entry for entry in entries if entry.name == name]
    if any(entry.kind is FileKind.DIRECTORY for entry in exact):
        return exact
    beside = [
        entry
        for entry in entries
        if entry.name.startswith(f"{name}.") and (entry.is_link or entry.kind is not FileKind.DIRECTORY)
    ]
    return exact + beside
