"""The demo on real parts: nats-server, a frontend over HTTP, a worker process, gRPC, a real model."""

import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import anyio
from anyio import to_thread

from ...adapters.filesystem.ranged_files import LocalRangedFiles
from ...domain.galleries import Gallery
from ...domain.ports.filesystem import RootedPath
from ...domain.ports.object_store import StagingKey
from ..simulator.frontend import SimulatedFrontend
from ..simulator.local_cluster import LocalCluster, WorkerProcess, local_cluster
from ..simulator.shared_store import shared_store
from .changed_model import write_changed_model
from .distributions import model_files
from .leftovers import Leftover, find_leftovers
from .pack import pack_minilm
from .story import BACKEND, MODEL, DemoFailed

_NODE = "demo-node"


@dataclass
class RealStage:
    """A `Stage` on a `LocalCluster`; `example` is the directory of the example backend."""

    cluster: LocalCluster
    example: Path
    tasks: anyio.abc.TaskGroup
    node_name: str = _NODE
    expected: tuple[float, float] | None = (0.875, -0.036)  # published for all-MiniLM-L6-v2
    storage: Mapping[str, str] = field(default_factory=dict)  # the worker's settings for an object store
    _worker: WorkerProcess | None = field(default=None, init=False)

    @property
    def frontend(self) -> SimulatedFrontend:
        return self.cluster.frontend

    async def prepare_backend(self) -> tuple[Gallery, str]:
        backends = self.cluster.home(_NODE) / "backends"
        await to_thread.run_sync(lambda: backends.mkdir(parents=True))
        archive = self.cluster.directory / f"{BACKEND}.tar"
        digest = await to_thread.run_sync(pack_minilm, self.example, archive)
        # A worker trusts file:// indexes below its backends directory only.
        index = backends / "gallery.yaml"
        entry = {"name": BACKEND, "uri": f"ocifile://{archive}", "description": "all-MiniLM-L6-v2 in numpy"}
        await to_thread.run_sync(index.write_text, json.dumps([entry]))  # JSON is YAML
        size_mb = archive.stat().st_size / 1e6
        return Gallery("demo", f"file://{index}"), f"{size_mb:.0f} MB image, {digest[:19]}"

    async def start_worker(self) -> str:
        # run.sh starts with the interpreter its libraries were packed for.
        self._worker = await self.cluster.start_worker(_NODE, {"PYTHON": sys.executable, **self.storage})
        self.tasks.start_soon(self._worker.watch)
        return f"pid {self._worker.process.pid}"

    def model_files(self) -> Mapping[str, Path]:
        return model_files()

    async def change_model(self) -> Mapping[str, Path]:
        store = self.frontend.object_store
        if store is None:
            return {}
        name = "model.safetensors"
        files = dict(self.model_files())
        changed = self.cluster.directory / name
        await to_thread.run_sync(write_changed_model, files[name], changed)
        source = await LocalRangedFiles().open_source(RootedPath(changed.parent, PurePosixPath(name)))
        assert source is not None
        await store.put(StagingKey(f"models/{MODEL}/{name}"), source)
        await source.close()
        return {**files, name: changed}

    async def stop_worker(self) -> str:
        assert self._worker is not None
        code = await self._worker.stop()
        if code != 0:
            raise DemoFailed(f"the worker ended with exit code {code}:\n{self._worker.tail()}")
        endpoints = [call.endpoint for call in self.cluster.registry.calls]
        if missing := {"register", "heartbeat", "drain", "deregister"} - set(endpoints):
            raise DemoFailed(f"the worker never called: {', '.join(sorted(missing))}")
        return "exit code 0"

    async def leftovers(self) -> Sequence[Leftover]:
        assert self._worker is not None
        home, ports = self._worker.directory, self._worker.ports
        return await to_thread.run_sync(find_leftovers, home, ports)


@asynccontextmanager
async def real_stage(directory: Path, example: Path, storage: str = "http") -> AsyncIterator[RealStage]:
    """The stage below `directory`; leaving it ends every part. `storage`: how files travel, `http` or `s3`.

    Raises:
        PartFailed: a part could not start, or the worker process ended in the middle of the story.
    """
    async with (
        local_cluster(directory) as cluster,
        shared_store(cluster, storage) as settings,
        anyio.create_task_group() as tasks,
    ):
        yield RealStage(cluster, example, tasks, storage=settings)
        tasks.cancel_scope.cancel()
