"""Where the fleet's backends come from: a gallery and a registry, which may be slow, lie or be away."""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from ....adapters.memory.artifacts import InMemoryArtifacts
from ....adapters.memory.galleries import InMemoryGalleries
from ....domain.galleries import Gallery
from ....domain.ports.filesystem import FileSystem

GALLERY = Gallery("fleet", "https://gallery.invalid/index.yaml")
BACKENDS = ("llama-cpp", "whisper", "diffusers", "vllm", "piper", "rerankers")
RUN_SH = b'#!/bin/sh\nexec ./engine "$@"\n'


@dataclass
class BackendRegistry:
    """The payloads by uri. The files of a backend name their version: a mix of two is a torn tree."""

    random: Random
    trees: dict[str, Any] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    galleries: InMemoryGalleries = field(default_factory=InMemoryGalleries)
    offline: bool = False
    slow: bool = False
    versions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.galleries.indexes[GALLERY.url] = [{"name": name, "uri": _uri(name)} for name in BACKENDS]
        for name in BACKENDS:
            self.publish(name)

    def publish(self, name: str) -> None:
        """Put a new version of backend `name` up."""
        self.versions[name] = version = self.versions.get(name, 0) + 1
        stamp = f"{name} {version}\n".encode()
        self.trees[_uri(name)] = {"run.sh": RUN_SH, "engine": stamp * 3, "lib/kernels.so": stamp * 5}

    def set_offline(self, *, offline: bool) -> None:
        """Let neither the gallery nor the registry answer, or both again."""
        self.offline = self.galleries.offline = offline

    def download_s(self) -> float:
        """How long the next payload takes."""
        return self.random.uniform(100, 400) if self.slow else self.random.uniform(2, 20)

    def lie(self, *, lying: bool) -> None:
        """Let every payload break off half-way, or let them be whole again."""
        self.broken.clear()
        if lying:
            self.broken.update(self.trees)


class FleetArtifacts(InMemoryArtifacts):
    """The payloads of a `BackendRegistry`, as it is at the moment of a download."""

    def __init__(self, filesystem: FileSystem, backends: BackendRegistry) -> None:
        super().__init__(filesystem, backends.trees, backends.broken)
        self._backends = backends

    async def fetch(self, uri: str, into: Path, **options: Any) -> Any:
        self.offline, self.delay_s = self._backends.offline, self._backends.download_s()
        return await super().fetch(uri, into, **options)


def _uri(name: str) -> str:
    return f"oci://registry.invalid/{name}:latest"


def is_whole(name: str, files: dict[str, bytes]) -> bool:
    """Whether `files` are those of one version of backend `name`, all of them and nothing half."""
    engine = files.get("engine", b"")
    stamp = engine[: len(engine) // 3]
    whole = {"run.sh": RUN_SH, "engine": stamp * 3, "lib/kernels.so": stamp * 5}
    return bool(stamp) and stamp.startswith(f"{name} ".encode()) and files == whole
