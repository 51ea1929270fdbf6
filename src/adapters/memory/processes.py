"""`Processes` on an in-memory machine."""

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from ...domain.errors import SpawnFailed
from ...domain.ports.outputs import full_part
from ...domain.ports.processes import (
    Listening,
    MarkedGroup,
    ProcessExit,
    ProcessIdentity,
    ProcessSpec,
    StopSignal,
    Work,
)
from .machine import FakeProcess, FakeProgram, InMemoryMachine


@dataclass(frozen=True)
class FoundFakeProcess:
    """A process that another worker started: nobody tells how it ends."""

    started: FakeProcess

    @property
    def pid(self) -> int:
        return self.started.pid

    @property
    def identity(self) -> ProcessIdentity:
        return self.started.identity

    @property
    def exit(self) -> ProcessExit | None:
        return None if self.started.exit is None else ProcessExit()

    async def wait(self) -> ProcessExit:
        await self.started.wait()
        return ProcessExit()

    def signal_group(self, signal: StopSignal) -> None:
        self.started.signal_group(signal)

    def group_alive(self) -> bool:
        return self.started.group_alive()

    async def listening(self, port: int) -> Listening:
        return await self.started.listening(port)

    async def work(self) -> Work:
        return Work(cpu_s=(await self.started.work()).cpu_s)


@dataclass
class InMemoryProcesses:
    """Starts the `FakeProgram` filed under the name of the program's directory (the backend's name).

    `default` runs for every other name; without one an unknown program cannot be started.
    """

    machine: InMemoryMachine
    programs: MutableMapping[str, FakeProgram] = field(default_factory=dict)
    default: FakeProgram | None = None

    async def spawn(self, spec: ProcessSpec) -> FakeProcess:
        await anyio.lowlevel.checkpoint()
        program = self.programs.get(spec.directory.name, self.default)
        if program is None:
            raise SpawnFailed(spec.program, "No such file or directory")
        return self.machine.start(spec, program)

    async def find(self, identity: ProcessIdentity) -> FoundFakeProcess | None:
        await anyio.lowlevel.checkpoint()
        found = (process for process in self.machine.running if process.identity == identity)
        return next((FoundFakeProcess(process) for process in found), None)

    async def marked(self, owner: str) -> tuple[MarkedGroup, ...]:
        await anyio.lowlevel.checkpoint()
        return tuple(
            MarkedGroup(process.spec.mark, FoundFakeProcess(process))
            for process in self.machine.processes
            if process.spec.mark.startswith(f"{owner}.") and process.group_alive()
        )

    async def tail(self, path: Path, *, lines: int, limit_bytes: int) -> str:
        await anyio.lowlevel.checkpoint()
        outputs = self.machine.outputs
        text = outputs.get(full_part(path), "") + outputs.get(path, "")
        text = text.encode()[-limit_bytes:].decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])
