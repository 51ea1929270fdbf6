"""What backends print, from their output files into the log store."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .backend import ReplicaKey
from .backend_logs import BackendLogs
from .output_text import LineSplitter
from .ports.clock import Clock
from .ports.outputs import NewOutput, OutputFiles

log = logging.getLogger(__name__)

_REPLAY_BYTES = 256 * 1024  # of a file that is followed anew: of an adopted process, its last lines
_OUTPUT_BYTES = 512 * 1024 * 1024  # what all output may take before the oldest is removed
_PRUNE_EVERY = 20  # starts


@dataclass
class _Stream:
    key: ReplicaKey
    name: str
    splitter: LineSplitter = field(default_factory=LineSplitter)


@dataclass
class CollectOutput:
    """Follows the output of every process and keeps its lines, each with the time at which it was read.

    The files lie in `directory`, where what ended long ago makes room.
    """

    files: OutputFiles
    logs: BackendLogs
    clock: Clock
    directory: Path
    _unpruned: int = _PRUNE_EVERY
    _streams: dict[Path, _Stream] = field(default_factory=dict)

    def follow(self, key: ReplicaKey, *, stdout: Path, stderr: Path) -> None:
        """Keep what the process of `key` prints from now on, and the end of what it has printed already."""
        self._unpruned += 1
        for path, name in ((stdout, "stdout"), (stderr, "stderr")):
            self._streams[path] = _Stream(key, name)
            self.files.follow(path, replay_bytes=_REPLAY_BYTES)

    async def finish(self, *, stdout: Path, stderr: Path) -> None:
        """Keep the last words of a process that has ended, and follow it no more."""
        for path in (stdout, stderr):
            new = await self.files.finish(path)
            stream = self._streams.pop(path, None)
            if stream is not None:
                self._keep(stream, [*self._lines(stream, new), *stream.splitter.end()])

    async def run(self) -> None:
        """Collect until cancelled.

        What ended long ago makes room once a first process is followed: before that, the files of those that
        are about to be taken over would count as such.
        """
        while True:
            for new in await self.files.news():
                stream = self._streams.get(new.path)
                if stream is not None:
                    self._keep(stream, self._lines(stream, new))
            if self._unpruned >= _PRUNE_EVERY:
                await self._prune()

    async def _prune(self) -> None:
        self._unpruned = 0
        await self.files.prune(self.directory, keep=frozenset(self._streams), limit_bytes=_OUTPUT_BYTES)

    def _lines(self, stream: _Stream, new: NewOutput) -> list[str]:
        lines = stream.splitter.lines(new.data)
        if new.skipped_bytes:
            lines.insert(0, f"... {new.skipped_bytes} bytes came too fast to be shown; see {new.path}")
        return lines

    def _keep(self, stream: _Stream, lines: Iterable[str]) -> None:
        now = self.clock.now()
        for line in lines:
            self.logs.append(stream.key, stream.name, line, now)
            log.debug("backend output: replica=%s stream=%s text=%r", stream.key, stream.name, line)
