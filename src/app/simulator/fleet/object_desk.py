"""The frontend's side of the object store: its own files, and what it sends through the store and back."""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from ....adapters.memory.filesystem import InMemoryFileSystem
from ....adapters.memory.loop_clock import LoopClock
from ....adapters.memory.ranged_files import InMemoryRangedFiles
from ....domain.errors import WorkerError
from ..object_staging import ObjectStager
from .host import Host
from .inference import model_file
from .objects import FleetObjectStore

_MODELS = Path("/models")
_RESULT_BYTES = 180


@dataclass(eq=False)
class ResultLost(WorkerError):
    """The worker has told a place for a result that is not there."""

    path: str

    def __str__(self) -> str:
        return f"nobody can write a result to {self.path}"


def object_key(model: str) -> str:
    """Under which key the file of `model` is staged."""
    return f"models/{model}/{model}.gguf"


@dataclass(eq=False)
class ObjectDesk:
    """What a frontend with an object store does with a worker that has it too."""

    store: FleetObjectStore
    random: Random
    disk: InMemoryFileSystem = field(default_factory=lambda: InMemoryFileSystem(clock=LoopClock()))
    ranged: InMemoryRangedFiles = field(init=False)
    _versions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ranged = InMemoryRangedFiles(self.disk)

    def change(self, model: str, *, deleted: bool) -> None:
        """Somebody puts another file in the place of a model's object, or deletes it: the next who needs it
        puts it there again.
        """
        version = self._versions[model] = self._versions.get(model, 0) + 1
        key = object_key(model)
        if deleted:
            self.store.remove(key)
        elif key in self.store.objects:
            self.store.store(key, model_file(model, version))

    async def ensure_model(self, stager: ObjectStager, model: str) -> str:
        """Have the worker fetch the model's file; its path there."""
        source = _MODELS / f"{model}.gguf"
        self.disk.put(source, model_file(model, self._versions.get(model, 0)))
        return await stager.ensure(source, object_key(model))

    async def use(self, stager: ObjectStager, host: Host) -> None:
        """What a request with an input and a result takes: stage the one, have a place made for the other,
        and fetch it.

        Raises:
            WorkerError: some of it failed.
        """
        request = f"{self.random.randrange(1 << 32):08x}"
        key = f"ephemeral/inputs/{request}/input.bin"
        source, target = Path(f"/inputs/{request}"), Path(f"/results/{request}")
        self.disk.put(source, request.encode() * 4)
        try:
            await stager.ensure(source, key)
            result = Path(await stager.alloc_temp())
            if host.filesystem.get(result) is None:
                raise ResultLost(str(result))
            host.filesystem.put(result, self.random.randbytes(_RESULT_BYTES))
            await stager.fetch_result(str(result), target)
            await stager.list_dir(f"ephemeral/inputs/{request}")
        finally:
            self.store.remove(key)
            for path in (source, target):
                if self.disk.get(path) is not None:
                    self.disk.disk.tree.detach(self.disk.disk.tree.entry(path))
