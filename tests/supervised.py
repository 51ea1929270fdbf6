"""A supervisor on an in-memory machine, for tests in virtual time."""

from dataclasses import dataclass, field
from pathlib import Path

from localai_worker.adapters.memory.backend_client import InMemoryBackendClient
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.loop_clock import LoopClock
from localai_worker.adapters.memory.machine import FakeProgram, InMemoryMachine
from localai_worker.adapters.memory.network import InMemoryNetwork
from localai_worker.adapters.memory.oom import InMemoryOomKills
from localai_worker.adapters.memory.outputs import InMemoryOutputFiles
from localai_worker.adapters.memory.processes import InMemoryProcesses
from localai_worker.domain.allocate_ports import PortPool
from localai_worker.domain.backend import ReplicaKey
from localai_worker.domain.backend_logs import BackendLogs
from localai_worker.domain.collect_output import CollectOutput
from localai_worker.domain.crash_loops import Program
from localai_worker.domain.deaths import Deaths
from localai_worker.domain.start_backend import BackendStarter
from localai_worker.domain.stop_group import StopLadder
from localai_worker.domain.supervise import Supervisor

BACKENDS = Path("/node/backends")
KEY = ReplicaKey("qwen", 0)
LLAMA = frozenset({"llama-cpp"})


@dataclass(frozen=True)
class Installed:
    name: str

    @property
    def run_file(self) -> Path:
        return BACKENDS / self.name / "run.sh"


LLAMA_CPP = Installed("llama-cpp")


@dataclass
class Node:
    """A supervisor and the machine below it."""

    machine: InMemoryMachine = field(default_factory=InMemoryMachine)
    filesystem: InMemoryFileSystem = field(default_factory=InMemoryFileSystem)
    programs: dict[str, FakeProgram] = field(default_factory=dict)
    ports: PortPool = field(default_factory=lambda: PortPool(range(50051, 50060)))
    logs: BackendLogs = field(default_factory=BackendLogs)
    deaths: Deaths = field(init=False)
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        self.deaths = Deaths(LoopClock(), InMemoryOomKills(self.machine))
        client = InMemoryBackendClient(self.machine)
        self.supervisor = Supervisor(
            starter=BackendStarter(
                processes=InMemoryProcesses(self.machine, self.programs),
                client=client,
                filesystem=self.filesystem,
                deaths=self.deaths,
                output=CollectOutput(
                    InMemoryOutputFiles(self.machine), self.logs, LoopClock(), Path("/node/logs")
                ),
                environment={"PATH": "/bin"},
                output_directory=Path("/node/logs"),
            ),
            client=client,
            filesystem=self.filesystem,
            network=InMemoryNetwork(self.machine),
            ports=self.ports,
            ladder=StopLadder(),
        )
        self.install("llama-cpp", FakeProgram(listens_after_s=1))

    @property
    def program(self) -> Program:
        """What llama-cpp is."""
        return Program(LLAMA_CPP.run_file, 1)

    def install(self, name: str, program: FakeProgram) -> Installed:
        self.programs[name] = program
        self.filesystem.put(BACKENDS / name / "run.sh", b"#!/bin/sh\n")
        return Installed(name)
