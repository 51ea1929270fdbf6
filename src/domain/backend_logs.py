"""The last lines that each backend process printed, kept in memory for the log routes."""

import heapq
import logging
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Self

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from .backend import ReplicaKey
from .messages.log_lines import LogLine

log = logging.getLogger(__name__)

_LINE_COST = 200  # characters that a line takes besides its text, about


@dataclass(eq=False)
class LogReader:
    """A live view on one identifier: `initial` are the lines up to now, iterating gives those that follow.

    No line is lost or told twice between the two (H-26). Iteration ends when the store drops the reader;
    `dropped` says that it read too slowly.
    """

    identifier: str
    initial: tuple[LogLine, ...]
    lines: MemoryObjectReceiveStream[LogLine]
    feed: MemoryObjectSendStream[LogLine]
    dropped: bool = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogLine:
        try:
            return await self.lines.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    def offer(self, line: LogLine) -> bool:
        """Hand over one line without waiting; False when this reader has fallen behind and is let go."""
        try:
            self.feed.send_nowait(line)
        except anyio.WouldBlock:
            self.dropped = True
            self.feed.close()
            return False
        return True

    def close(self) -> None:
        """End it; idempotent."""
        self.feed.close()
        self.lines.close()


@dataclass
class BackendLogs:
    """A ring of lines for every replica, kept after its process has ended.

    An identifier means the replica `model#N`, or, as a bare model id, all replicas of that model in the
    order of time. Bounds: `lines_per_key` lines of at most `line_characters` each, `characters` in all (the
    lines of those that have been silent longest go first), and `reader_lines` waiting for each reader.
    Not for several threads. Source: LocalAI pkg/model/backend_log_store.go.
    """

    lines_per_key: int = 1000
    line_characters: int = 16 * 1024
    characters: int = 32 * 1024 * 1024
    reader_lines: int = 1000
    _rings: OrderedDict[ReplicaKey, deque[LogLine]] = field(default_factory=OrderedDict)
    _held: int = 0
    _readers: dict[LogReader, None] = field(default_factory=dict)

    def append(self, key: ReplicaKey, stream: str, text: str, at: datetime) -> None:
        """Keep one line that `key` printed on `stream` and hand it to whoever follows."""
        if len(text) > self.line_characters:
            cut = len(text) - self.line_characters
            text = f"{text[: self.line_characters]} [{cut} more characters]"
        line = LogLine(at=at, stream=stream, text=text)
        ring = self._rings.setdefault(key, deque())
        self._rings.move_to_end(key)  # the one that was silent longest stands first
        ring.append(line)
        self._held += _cost(line)
        if len(ring) > self.lines_per_key:
            self._held -= _cost(ring.popleft())
        while self._held > self.characters:
            self._forget_one()
        for reader in [each for each in self._readers if key.matches(each.identifier)]:
            if not reader.offer(line):
                del self._readers[reader]
                log.warning("log reader dropped, it reads too slowly: id=%s", reader.identifier)

    def models(self) -> tuple[str, ...]:
        """The model ids that have lines, sorted, without replica numbers."""
        return tuple(sorted({key.model for key in self._rings}))

    def lines(self, identifier: str) -> tuple[LogLine, ...]:
        """What `identifier` printed, oldest first; nothing for an unknown one."""
        rings = [ring for key, ring in self._rings.items() if key.matches(identifier)]
        return tuple(heapq.merge(*rings, key=attrgetter("at")))

    @contextmanager
    def follow(self, identifier: str) -> Iterator[LogReader]:
        """A live view, also on what has not printed anything yet (H-27)."""
        feed, lines = anyio.create_memory_object_stream[LogLine](self.reader_lines)
        reader = LogReader(identifier, self.lines(identifier), lines, feed)
        self._readers[reader] = None
        try:
            yield reader
        finally:
            self._readers.pop(reader, None)
            reader.close()

    def _forget_one(self) -> None:
        key, ring = next(iter(self._rings.items()))
        self._held -= _cost(ring.popleft())
        if not ring:
            del self._rings[key]


def _cost(line: LogLine) -> int:
    return len(line.text) + _LINE_COST
