"""What /readyz says: only a bus that is down is an obstacle, everything else a worry."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from localai_worker.adapters.memory.bus import InMemoryBroker, InMemoryMessageBus
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain.ports.filesystem import DiskSpace
from localai_worker.domain.readiness import BUS_DOWN, Readiness

GIB = 1 << 30


@dataclass
class Part:
    worries: tuple[str, ...]


class Disk(InMemoryFileSystem):
    room: DiskSpace | None = DiskSpace(100 * GIB, 50 * GIB)

    async def space(self, path: Path) -> DiskSpace | None:
        return self.room


@pytest.fixture
def bus() -> InMemoryMessageBus:
    return InMemoryMessageBus(InMemoryBroker())


async def test_a_bus_that_is_down_is_the_obstacle(bus: InMemoryMessageBus) -> None:
    """H-3810fe1a1: seed has no probe, and newer's was true for years although NATS was dead."""
    readiness = Readiness(bus, Disk(), Path("/models"))
    down = await readiness.check()
    assert (down.ready, down.text) == (False, f"not ready: {BUS_DOWN}")
    await bus.open()
    up = await readiness.check()
    assert (up.ready, up.text) == (True, "ok")


async def test_worries_follow_in_lines_of_their_own_and_change_nothing_else(bus: InMemoryMessageBus) -> None:
    parts = (Part(("waiting for approval",)), Part(()), Part(("two\nlines", "more")))
    readiness = Readiness(bus, Disk(), Path("/models"), parts)
    assert (await readiness.check()).text.splitlines()[1:] == ["waiting for approval", "two lines", "more"]
    await bus.open()
    report = await readiness.check()
    assert report.ready
    assert report.text == "ok\nwaiting for approval\ntwo lines\nmore"


@pytest.mark.parametrize(
    ("room", "worry"),
    [
        (DiskSpace(100 * GIB, 5 * GIB), None),
        (DiskSpace(100 * GIB, 5 * GIB - 1), "5.0 GiB free for models; below 5.0 GiB the frontend sends none"),
        (DiskSpace(10 * GIB, GIB), None),
        (DiskSpace(10 * GIB, GIB // 2), "0.5 GiB free for models; below 1.0 GiB the frontend sends none"),
        (DiskSpace(10 * GIB, 0), "0.0 GiB free for models; below 1.0 GiB the frontend sends none"),
        (None, "the disk of the models directory cannot be read"),
    ],
)
async def test_a_disk_below_what_the_frontend_wants_free_is_a_worry(
    bus: InMemoryMessageBus, room: DiskSpace | None, worry: str | None
) -> None:
    """H-6584db992: the floor is that of the frontend's scheduler."""
    disk = Disk()
    disk.room = room
    report = await Readiness(bus, disk, Path("/models")).check()
    assert report.worries == ((worry,) if worry else ())
