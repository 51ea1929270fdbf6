"""`Processes` on an in-memory machine."""

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from ...domain.errors import SpawnFailed
from ...domain.ports.processes import ProcessSpec
from .machine import FakeProcess, FakeProgram, InMemoryMachine


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

    async def tail(self, path: Path, *, lines: int, limit_bytes: int) -> str:
        await anyio.lowlevel.checkpoint()
        text = self.machine.outputs.get(path, "").encode()[-limit_bytes:].decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])
