"""How far a fetch is: counted in worker threads, told in the event loop."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio

from ...domain.ports.artifacts import FetchPhase, FetchProgress, Report
from .streams import ByteReader

_PHASES = tuple(FetchPhase)


@dataclass
class Meter:
    """Counts the bytes of one artifact, as stored, that are here and unpacked.

    One thread counts; whoever reads sees no step back, not even when it is counted anew.
    """

    report: Report
    interval_s: float = 0.1
    is_downloaded: Callable[[], bool] = lambda: False
    _now: FetchProgress = field(default=FetchProgress(FetchPhase.RESOLVING))
    _counted_bytes: int = 0
    _told: FetchProgress | None = None

    def begin(self, total_bytes: int, phase: FetchPhase = FetchPhase.DOWNLOADING) -> None:
        """Everything is known: the content comes now."""
        self._now = FetchProgress(phase, 0, total_bytes)

    def add(self, size_bytes: int) -> None:
        """So many more bytes are done; more than the total are not counted."""
        now = self._now
        self._counted_bytes += size_bytes
        done_bytes = max(now.done_bytes, min(self._counted_bytes, now.total_bytes))
        self._now = FetchProgress(now.phase, done_bytes, now.total_bytes)

    def restart(self) -> None:
        """Everything is counted again from the start."""
        self._counted_bytes = 0

    def finish(self) -> None:
        """Everything is done, also what nobody counted."""
        total_bytes = self._now.total_bytes
        self._now = FetchProgress(_PHASES[-1], total_bytes, total_bytes)

    def tell(self) -> None:
        """Report now, if something changed; in the event loop."""
        now = self._now
        if now.phase is FetchPhase.DOWNLOADING and self.is_downloaded():
            now = replace(now, phase=FetchPhase.EXTRACTING)
        if self._told is not None and _PHASES.index(now.phase) < _PHASES.index(self._told.phase):
            now = replace(now, phase=self._told.phase)
        if now != self._told:
            self._told = now
            self.report(now)


class CountingReader:
    """Counts what is read."""

    def __init__(self, source: ByteReader, meter: Meter) -> None:
        self._source = source
        self._meter = meter

    def read(self, size: int, /) -> bytes:
        chunk = self._source.read(size)
        self._meter.add(len(chunk))
        return chunk


def unpacked_estimate(stored_bytes: int) -> int:
    """About how many bytes a payload has that takes `stored_bytes` compressed; nobody says beforehand."""
    return stored_bytes * 5 // 2


@asynccontextmanager
async def reporting(report: Report) -> AsyncIterator[Meter]:
    """A meter that is reported as `ArtifactSource.fetch` promises, while the block runs."""
    meter = Meter(report)
    meter.tell()
    failure: Exception | None = None

    async def tell_often() -> None:
        while True:
            await anyio.sleep(meter.interval_s)
            meter.tell()

    async with anyio.create_task_group() as telling:
        telling.start_soon(tell_often)
        try:
            yield meter
        except Exception as error:  # noqa: BLE001
            failure = error  # raised below, not inside the group, which would wrap it
        telling.cancel_scope.cancel()
    if failure is not None:
        raise failure
    meter.finish()
    meter.tell()
