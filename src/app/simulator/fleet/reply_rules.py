"""Rules about requests: each is answered once, in time, and with the address of what was asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from ....adapters.memory.bus import InMemoryMessageBus
from ....adapters.memory.machine import FakeProcess
from ....domain.errors import MalformedMessage
from ....domain.messages.backend import BackendInstallReply, BackendInstallRequest
from ....domain.ports.bus import BusMessage
from .host import Host, key_of
from .life import Life
from .violations import Verdict

_KEPT_INBOXES = 512
_REQUESTS_AT_ONCE = 500
_BUG = b"internal error"  # how a worker tells of an exception that it did not foresee

# How long the frontend waits for each command (sheet nats.md 6): an answer after that is none.
BOUNDS_S = {
    "backend.install": 900.0,
    "backend.upgrade": 900.0,
    "backend.delete": 120.0,
    "backend.list": 30.0,
    "model.unload": 30.0,
    "model.delete": 30.0,
    "model.stop": 10.0,
    "models.running": 10.0,
    "files.ensure": 600.0,
    "files.stage": 600.0,
    "files.temp": 30.0,
    "files.listdir": 30.0,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that reached a worker and was not answered yet."""

    subject: str
    payload: bytes
    at_s: float

    @property
    def command(self) -> str:
        return ".".join(self.subject.split(".")[2:])

    @property
    def late_s(self) -> float:
        return self.at_s + BOUNDS_S.get(self.command, 900.0)


ReplyCheck = Callable[[Host, Asked, bytes], None]
"""Looks at what was asked of a host, and at the reply."""


@dataclass
class _Requests:
    """Of one life: who waits for an answer, and who has one."""

    life: Life
    asked: dict[str, Asked] = field(default_factory=dict)
    answered: dict[str, None] = field(default_factory=dict)


@dataclass(eq=False)
class ReplyRules:
    """Follows every request to a worker. `handed` are the processes at the addresses a host has given out;
    `checks` look at replies, by command.
    """

    verdict: Verdict
    checks: dict[str, ReplyCheck] = field(default_factory=dict)
    handed: dict[int, dict[int, FakeProcess]] = field(default_factory=dict)  # by host number, then port
    _requests: dict[InMemoryMessageBus, _Requests] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.checks["backend.install"] = self._check_address

    def born(self, life: Life) -> None:
        """A worker begins."""
        self._requests[life.bus] = _Requests(life)

    def gone(self, life: Life) -> None:
        """A worker is no more; one that ended in good order has answered everybody."""
        requests = self._requests.pop(life.bus, None)
        if requests is None or life.fence.down:
            return
        for asked in requests.asked.values():
            self.verdict.fault("no-reply", life.host, f"it stopped without an answer to {asked.command}")

    def forgotten(self, host: Host) -> None:
        """The frontend has dropped every address of the host."""
        self.handed.pop(host.number, None)

    def asked(self, bus: InMemoryMessageBus, message: BusMessage) -> None:
        """A request has reached the client of a worker."""
        requests = self._requests.get(bus)
        if requests is None:
            return
        asked = requests.asked
        asked[message.reply_to] = Asked(message.subject, message.payload, anyio.current_time())
        if len(asked) > _REQUESTS_AT_ONCE:
            self.verdict.fault("growth", requests.life.host, f"{len(asked)} requests wait for an answer")

    def published(self, life: Life, subject: str, payload: bytes) -> None:
        """A worker publishes: a reply, if somebody asked with that inbox."""
        requests = self._requests.get(life.bus)
        if requests is None:
            return
        asked = requests.asked.pop(subject, None)
        if asked is None:
            if subject in requests.answered:
                self.verdict.fault("two-replies", life.host, f"a second reply to {subject}")
            return
        requests.answered[subject] = None
        if len(requests.answered) > _KEPT_INBOXES:
            del requests.answered[next(iter(requests.answered))]
        took_s = anyio.current_time() - asked.at_s
        if asked.at_s + took_s > asked.late_s:
            self.verdict.fault("late-reply", life.host, f"{asked.command} answered after {took_s:.0f} s")
        if _BUG in payload:
            self.verdict.fault("internal-error", life.host, f"{asked.command}: {payload.decode()}")
        if check := self.checks.get(asked.command):
            check(life.host, asked, payload)

    def overdue(self, life: Life) -> None:
        """Look for requests that nobody will answer in time any more."""
        now_s = anyio.current_time()
        requests = self._requests.get(life.bus)
        for asked in requests.asked.values() if requests else ():
            if now_s > asked.late_s:
                what = f"no reply to {asked.command} for {now_s - asked.at_s:.0f} s"
                self.verdict.fault("no-reply", life.host, what)

    def _check_address(self, host: Host, asked: Asked, payload: bytes) -> None:
        try:
            reply = BackendInstallReply.from_wire(payload)
            request = BackendInstallRequest.from_wire(asked.payload)
        except MalformedMessage as error:
            self.verdict.fault("wrong-address", host, f"an install and its reply cannot be read: {error}")
            return
        if not reply.success:
            return
        port = int(reply.address.rpartition(":")[2] or 0)
        key = f"{request.model_id or request.backend}#{request.replica_index}"
        given = f"{reply.address} is given for {key}"
        process = host.process_on(port)
        if port in host.machine.strangers:
            self.verdict.fault("wrong-address", host, f"{given}, and a stranger listens there")
        elif process is None:
            # It may have died in this very moment; but it must have been there.
            if not any(key_of(each) == key and each.port == port for each in host.machine.processes):
                self.verdict.fault("wrong-address", host, f"{given}, and nobody ever listened there")
        elif key_of(process) != key:
            self.verdict.fault("wrong-address", host, f"{given}, and {key_of(process)} answers there")
        else:
            self.handed.setdefault(host.number, {})[port] = process
