"""The output of a machine in memory: nobody polls, printing wakes the reader."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from anyio.lowlevel import checkpoint

from ...domain.ports.outputs import NewOutput, full_part
from .machine import InMemoryMachine


@dataclass
class InMemoryOutputFiles:
    """`OutputFiles` on `machine`; offsets count characters, which tests keep to ASCII."""

    machine: InMemoryMachine
    limit_bytes: int = 10 * 1024 * 1024
    read_bytes: int = 128 * 1024
    _offsets: dict[Path, int] = field(default_factory=dict)

    def follow(self, path: Path, *, replay_bytes: int) -> None:
        self._offsets[path] = max(0, len(self.machine.outputs.get(path, "")) - replay_bytes)
        self.machine.wake_readers()

    async def news(self) -> tuple[NewOutput, ...]:
        await checkpoint()
        while True:
            found = tuple(new for path in tuple(self._offsets) if (new := self._read(path)).data)
            if found:
                return found
            await self.machine.printed.wait()

    async def finish(self, path: Path) -> NewOutput:
        await checkpoint()
        new = self._read(path)
        self._offsets.pop(path, None)
        return new

    async def prune(self, directory: Path, *, keep: Collection[Path], limit_bytes: int) -> None:
        await checkpoint()
        outputs = self.machine.outputs
        taken = sum(len(text) for path, text in outputs.items() if path.parent == directory)
        for path in [path for path in outputs if path.parent == directory]:  # oldest first
            if taken <= limit_bytes:
                return
            if path not in keep and path not in self._offsets:
                taken -= len(outputs.pop(path))

    def _read(self, path: Path) -> NewOutput:
        text = self.machine.outputs.get(path, "")
        offset = self._offsets.get(path)
        if offset is None:
            return NewOutput(path, b"")
        begin = offset if offset <= len(text) else 0
        start = max(begin, len(text) - self.read_bytes)
        self._offsets[path] = len(text)
        if len(text) >= self.limit_bytes:
            self.machine.outputs[full_part(path)] = text
            self.machine.outputs[path] = ""
            self._offsets[path] = 0
        return NewOutput(path, text[start:].encode(), start - begin)
