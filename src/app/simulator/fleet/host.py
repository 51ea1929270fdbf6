"""One simulated machine of the fleet: its disk, processes and hardware, which outlive the workers on it."""

from collections import UserDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NoReturn
from urllib.parse import unquote

import anyio
from anyio.lowlevel import checkpoint

from ....adapters.memory.backend import FakeBackend
from ....adapters.memory.filesystem import InMemoryFileSystem
from ....adapters.memory.frontend import InMemoryFrontend
from ....adapters.memory.frontend_client import InMemoryFrontendClient
from ....adapters.memory.machine import FakeProcess, FakeProgram, InMemoryMachine
from ....adapters.memory.ranged_files import InMemoryRangedFiles
from ....domain.errors import FrontendUnavailable
from ....domain.ports.hardware import Gpu, Hardware, Memory
from ....domain.ports.processes import ProcessSpec
from .plan import node_name

_GIB = 1 << 30
_KEPT_DEAD = 8
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
MODEL_BYTES = 4 * _GIB  # of graphics memory that every running backend is said to hold
STATE_PATH = Path("/node/state")


@dataclass
class HostClock:
    """The machine's wall clock; `off_s`: how far it is from the true time."""

    off_s: float = 0.0

    def now(self) -> datetime:
        return _EPOCH + timedelta(seconds=anyio.current_time() + self.off_s)


class HostMachine(InMemoryMachine):
    """A machine that runs for years: it forgets the dead but for the latest."""

    def start(self, spec: ProcessSpec, program: FakeProgram) -> FakeProcess:
        if len(self.processes) > 2 * _KEPT_DEAD:
            dead = [process for process in self.processes if not process.group_alive()][:-_KEPT_DEAD]
            self.processes = [process for process in self.processes if process not in dead]
        return super().start(spec, program)


@dataclass(frozen=True)
class HostHardware:
    """A `HardwareProbe` of a node with one GPU; what runs takes its share."""

    machine: InMemoryMachine
    gpu_bytes: int
    _readings: dict[int, Hardware] = field(default_factory=dict)

    async def read(self) -> Hardware:
        running = len(self.machine.running) if self.machine.processes else 0
        reading = self._readings.get(running)
        if reading is None:
            free_bytes = max(0, self.gpu_bytes - running * MODEL_BYTES)
            gpu = Gpu(vendor="nvidia", name="simulated", total_bytes=self.gpu_bytes, free_bytes=free_bytes)
            ram = Memory(64 * _GIB, (60 - min(running, 50)) * _GIB)
            reading = Hardware(gpus=(gpu,), ram=ram, architecture="amd64", system="linux")
            self._readings[running] = reading
        return reading

    async def vram_by_group(self) -> Mapping[int, int]:
        return {process.pid: MODEL_BYTES for process in self.machine.running}


@dataclass(frozen=True)
class HostFrontendClient(InMemoryFrontendClient):
    """The way from one machine to the frontend, which may be cut."""

    host: "Host | None" = None

    async def register(self, request: Any) -> Any:
        if self._is_cut:
            await self._fail()
        return await super().register(request)

    async def heartbeat(self, node_id: Any, beat: Any) -> None:
        if self._is_cut:
            await self._fail()
        await super().heartbeat(node_id, beat)

    @property
    def _is_cut(self) -> bool:
        return self.host is not None and self.host.frontend_cut

    async def _fail(self) -> NoReturn:
        await checkpoint()
        raise FrontendUnavailable("memory", "the network to the frontend is cut")


class _Programs(UserDict[str, FakeProgram]):
    """What every backend of a host does when it is started: the host decides anew each time."""

    def __init__(self, host: "Host") -> None:
        super().__init__()
        self._host = host

    def get(self, key: str, default: Any = None) -> FakeProgram:
        del key, default
        return self._host.next_program()


@dataclass(eq=False)
class Host:
    """A machine with its disk; its worker gets files through an object store if it `has_store`, else by HTTP.

    The flags are faults under way: each says what the next backend does, or what is between the machine and
    the frontend.
    """

    number: int
    random: Random
    has_store: bool = False
    machine: HostMachine = field(default_factory=HostMachine)
    clock: HostClock = field(default_factory=HostClock)
    filesystem: InMemoryFileSystem = field(init=False)
    ranged: InMemoryRangedFiles = field(init=False)
    bus_cuts: int = 0  # partitions under way
    frontend_cut: bool = False
    starts_slowly: bool = False
    dies_at_start: bool = False
    hangs_in_free: bool = False
    ignores_term: bool = False
    leaves_a_child: bool = False
    hardware: HostHardware = field(init=False)
    programs: _Programs = field(init=False)

    def __post_init__(self) -> None:
        self.filesystem = InMemoryFileSystem(clock=self.clock)
        self.ranged = InMemoryRangedFiles(self.filesystem)
        self.hardware = HostHardware(self.machine, self.random.choice((16, 24, 48, 80)) * _GIB)
        self.programs = _Programs(self)

    @property
    def name(self) -> str:
        return node_name(self.number)

    def worker_died(self) -> None:
        """The kernel takes back what the worker held: its locks, the files it had open."""
        self.machine.worker_died(STATE_PATH)
        self.filesystem.disk.locked.clear()
        self.ranged.worker_died()

    def client(self, registry: InMemoryFrontend, token: str) -> HostFrontendClient:
        return HostFrontendClient(registry, token, host=self)

    def next_program(self) -> FakeProgram:
        """What the next process does."""
        backend = FakeBackend(hangs=frozenset({"free"}) if self.hangs_in_free else frozenset())
        program = FakeProgram(
            backend=backend,
            listens_after_s=0.02 + 5 * self.random.random() ** 12,
            term_s=self.random.random(),
        )
        if self.starts_slowly:
            program = replace(program, listens_after_s=self.random.uniform(15, 60))
        if self.dies_at_start:
            program = replace(
                program, exits_after_s=self.random.uniform(0, 3), exit_code=1, stderr="CUDA error\n"
            )
        if self.ignores_term:
            program = replace(program, term_s=1e9)
        if self.leaves_a_child:
            program = replace(program, child_outlives=True)
        return program

    def process_on(self, port: int) -> FakeProcess | None:
        """The backend process that answers on `port` now."""
        return next((process for process in self.machine.processes if process.serves(port)), None)

    @property
    def groups(self) -> list[FakeProcess]:
        """Backend processes of which any member lives."""
        return [process for process in self.machine.processes if process.group_alive()]

    @property
    def visible_files(self) -> list[Path]:
        return self.filesystem.files(Path("/node"))


def key_of(process: FakeProcess) -> str:
    """The replica for which `process` was started, as its output files are called."""
    return unquote(process.spec.stderr.name.removesuffix(".stderr.log"))
