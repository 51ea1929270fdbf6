"""How far a fetch is: counted in worker threads, told in the event loop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from ...domain.ports.artifacts import FetchPhase, FetchProgress, Report
from .streams import ByteReader

_PHASES = tuple(FetchPhase)


@dataclass
class Meter:
    """Counts the bytes of one artifact, as stored, that are here and unpacked.

    One thread counts; the phase only moves on, so that whoever reads sees no step back.
    """

    report: Report
    interval_s: float = 0.1
    _now: FetchProgress = field(default=FetchProgress(FetchPhase.RESOLVING))
    _told: FetchProgress | None = None

    def begin(self, total_bytes: int, phase: FetchPhase = FetchPhase.DOWNLOADING) -> None:
        """Everything is known: the content comes now."""
        self._now = FetchProgress(phase, 0, total_bytes)

    def add(self, size_bytes: int) -> None:
        """So many more bytes are done; more than the total are not counted."""
        now = self._now
        self._now = FetchProgress(
            now.phase, min(now.done_bytes + size_bytes, now.total_bytes), now.total_bytes
        )

    def enter(self, phase: FetchPhase) -> None:
        """Go on to `phase`, unless it is past."""
        now = self._now
        if _PHASES.index(phase) > _PHASES.index(now.phase):
            self._now = FetchProgress(phase, now.done_bytes, now.total_bytes)

    def finish(self) -> None:
        """Everything is done, also what nobody counted."""
        total_bytes = self._now.total_bytes
        self._now = FetchProgress(_PHASES[-1], total_bytes, total_bytes)

    def tell(self) -> None:
        """Report now, if something changed; in the event loop."""
        if self._now != self._told:
            self._told = self._now
            self.report(self._told)


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
