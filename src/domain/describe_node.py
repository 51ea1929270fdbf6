"""What a node says to its operator: what runs here, what died, what it waits for, and what it has left."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import anyio

from .deaths import Death, Deaths
from .durations import spoken
from .messages.registration import RegisterReply
from .ports.hardware import Hardware, HardwareProbe
from .process_table import Entry, ProcessTable


class HasTable(Protocol):
    """The supervisor, as far as it matters here."""

    @property
    def table(self) -> ProcessTable: ...


class HasRegistration(Protocol):
    """The enrolment, as far as it matters here."""

    @property
    def registered(self) -> RegisterReply | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """One process. `state`: starting, ready, stopping, or dead (its group is being ended).

    `vram_bytes` is what its process group holds of graphics memory, None where no driver tells; `pid` is None
    before it is spawned.
    """

    replica: str
    backend: str
    port: int
    state: str
    pid: int | None
    up_s: float | None
    vram_bytes: int | None

    def to_fields(self) -> dict[str, object]:
        """As it is written; what is not known is left out."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDescription:
    """The node at one moment. `obstacle` and `worries` as readiness tells them."""

    node_id: str
    name: str
    status: str
    obstacle: str
    worries: tuple[str, ...]
    processes: tuple[ProcessRow, ...]
    deaths: tuple[Death, ...]
    hardware: Hardware

    def to_fields(self) -> dict[str, object]:
        """As it is written: one JSON object; what is not known is left out."""
        ram = self.hardware.ram
        return {
            "node": {"id": self.node_id, "name": self.name, "status": self.status},
            "ready": not self.obstacle,
            "worries": [each for each in (self.obstacle, *self.worries) if each],
            "processes": [row.to_fields() for row in self.processes],
            "deaths": [_death_fields(death) for death in self.deaths],
            "gpus": [
                {
                    name: value
                    for name in ("vendor", "name", "total_bytes", "free_bytes")
                    if (value := getattr(gpu, name)) is not None
                }
                for gpu in self.hardware.gpus
            ],
            "ram": {"total_bytes": ram.total_bytes, "available_bytes": ram.available_bytes} if ram else {},
            "warnings": list(self.hardware.warnings),
        }


class Readable(Protocol):
    """A report of readiness."""

    @property
    def obstacle(self) -> str: ...

    @property
    def worries(self) -> tuple[str, ...]: ...


class Checks(Protocol):
    """Readiness, as far as it matters here."""

    async def check(self) -> Readable: ...


@dataclass
class DescribeNode:
    """Describes the node; the readings of hardware and drivers are bounded by their port."""

    name: str
    supervisor: HasTable
    deaths: Deaths
    enrolment: HasRegistration
    hardware: HardwareProbe
    readiness: Checks
    now_s: Callable[[], float] = anyio.current_time

    async def describe(self) -> NodeDescription:
        """The node as it is now."""
        used = await self.hardware.vram_by_group()
        tells = bool(used)
        reading, ready = await self.hardware.read(), await self.readiness.check()
        registered = self.enrolment.registered
        return NodeDescription(
            node_id=registered.id if registered else "",
            name=self.name,
            status=registered.status if registered else "not registered",
            obstacle=ready.obstacle,
            worries=ready.worries,
            processes=tuple(
                self._row(entry, used.get(_pid(entry) or 0, 0) if tells else None)
                for entry in self.supervisor.table.entries.values()
            ),
            deaths=self.deaths.recent,
            hardware=reading,
        )

    def _row(self, entry: Entry, vram_bytes: int | None) -> ProcessRow:
        return ProcessRow(
            replica=str(entry.key),
            backend=entry.backend.name,
            port=entry.lease.port,
            state=_state(entry),
            pid=_pid(entry),
            up_s=self.now_s() - entry.ready_s if entry.ready else None,
            vram_bytes=vram_bytes,
        )


def _pid(entry: Entry) -> int | None:
    return entry.spawned.process.pid if entry.spawned else None


def _state(entry: Entry) -> str:
    if entry.stopping:
        return "stopping"
    if not entry.ready:
        return "starting"
    return "ready" if entry.up else "dead"


def _death_fields(death: Death) -> dict[str, object]:
    return {
        "replica": str(death.key),
        "pid": death.pid,
        "at": death.at.isoformat(timespec="seconds"),
        "verdict": death.verdict,
        "uptime": spoken(death.uptime_s),
        "out_of_memory": death.out_of_memory,
        "last_line": death.last_line,
    }
