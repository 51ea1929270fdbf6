"""Does to a fleet what its schedule says."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from ....adapters.memory.backend import FakeBackend
from ....domain.addresses import DEFAULT_BASE_PORT
from ....domain.ports.processes import ProcessExit
from .fleet import Fleet
from .host import STATE_PATH, Host
from .objects import LIES
from .plan import PORTS_PER_NODE, Fault

_PATIENCE_S = 20.0
_STEPS = 60  # a kill comes within so many calls of the worker
_DAY_S = 86_400.0
_REPLACED_S = 5.0  # how long nobody is there while one frontend takes over from another
# Faults that only set a flag of their host for a while.
_FLAGS = {
    "slow-start": "starts_slowly",
    "start-crash": "dies_at_start",
    "hang-in-free": "hangs_in_free",
    "ignored-term": "ignores_term",
    "left-child": "leaves_a_child",
    "heartbeat-gap": "frontend_cut",
}


@dataclass(eq=False)
class FaultPlayer:
    """Each fault is a task of its own; what it broke is whole again when it ends."""

    fleet: Fleet

    async def play(self, faults: tuple[Fault, ...]) -> None:
        """Every fault at its time; returns when the last one is over."""
        async with anyio.create_task_group() as tasks:
            for fault in faults:
                tasks.start_soon(self._play, fault)

    async def _play(self, fault: Fault) -> None:
        await anyio.sleep_until(fault.at_s)
        self.fleet.history.add("fault", str(fault))
        self.fleet.figures.faults.append(fault)
        hosts = [self.fleet.hosts[number] for number in fault.nodes if number < len(self.fleet.hosts)]
        if fault.kind in _FLAGS:
            await self._flag(_FLAGS[fault.kind], hosts, fault)
        else:
            how: Callable[[list[Host], Fault], Awaitable[None]] = getattr(self, fault.kind.replace("-", "_"))
            await how(hosts, fault)

    async def _flag(self, name: str, hosts: list[Host], fault: Fault) -> None:
        for host in hosts:
            setattr(host, name, True)
        await anyio.sleep(fault.for_s)
        for host in hosts:
            setattr(host, name, False)

    async def bus_loss(self, _hosts: list[Host], fault: Fault) -> None:
        self.fleet.broker.loss = 0.02 + fault.number % 100 / 500
        await anyio.sleep(fault.for_s)
        self.fleet.broker.calm()

    async def bus_delay(self, _hosts: list[Host], fault: Fault) -> None:
        self.fleet.broker.delay_s = 0.05 + fault.number % 100 / 20
        await anyio.sleep(fault.for_s)
        self.fleet.broker.calm()

    async def bus_partition(self, hosts: list[Host], fault: Fault) -> None:
        for host in hosts:
            host.bus_cuts += 1  # a worker that starts meanwhile is cut off too
            if life := self.fleet.life_on(host.name):
                life.bus.offline = True
        await anyio.sleep(fault.for_s)
        for host in hosts:
            host.bus_cuts -= 1
            if (life := self.fleet.life_on(host.name)) and not host.bus_cuts:
                life.bus.offline = False

    async def bus_restart(self, _hosts: list[Host], fault: Fault) -> None:
        self.fleet.broker.offline = True
        await anyio.sleep(fault.for_s)
        self.fleet.broker.offline = False

    async def echo(self, hosts: list[Host], fault: Fault) -> None:
        ids = {str(node_id) for host in hosts if (node_id := self.fleet.node_id(host))}
        self.fleet.bus.echoes |= ids
        await anyio.sleep(fault.for_s)
        self.fleet.bus.echoes -= ids

    async def frontend_restart(self, _hosts: list[Host], fault: Fault) -> None:
        await self.fleet.restart_frontend(fault.for_s)

    async def frontend_replaced(self, _hosts: list[Host], fault: Fault) -> None:
        nobody_s = min(_REPLACED_S, fault.for_s / 2)  # a fault that meets the end of all faults is cut short
        await self.fleet.restart_frontend(nobody_s, replaced=True)
        await anyio.sleep(fault.for_s - 2 * nobody_s)
        await self.fleet.restart_frontend(nobody_s, replaced=True)

    async def registry_wiped(self, _hosts: list[Host], fault: Fault) -> None:
        await self.fleet.restart_frontend(fault.for_s, wiped=True)

    async def frontend_errors(self, _hosts: list[Host], fault: Fault) -> None:
        self.fleet.registry.answer_next(503, times=1 + fault.number % (2 * len(self.fleet.hosts)))

    async def kill(self, hosts: list[Host], fault: Fault) -> None:
        """At the so-many-th call of the worker from now on, or soon if it is at rest."""
        for host in hosts:
            if life := self.fleet.life_on(host.name):
                life.fence.kill_after(1 + fault.number % _STEPS)
                await anyio.sleep(_PATIENCE_S)
                if not (life.fence.down or life.over):
                    self.fleet.kill(host)
            self.fleet.start(host, fault.for_s)

    async def long_death(self, hosts: list[Host], fault: Fault) -> None:
        await self.kill(hosts, fault)

    async def torn_journal(self, hosts: list[Host], fault: Fault) -> None:
        for host in hosts:
            self.fleet.kill(host)
            self._tear(host, fault.number)
            self.fleet.start(host, fault.for_s)

    def _tear(self, host: Host, number: int) -> None:
        """Cut one record of the journal short, or fill it with rubbish."""
        records = [path for path in host.filesystem.files(STATE_PATH) if path.suffix == ".json"]
        if records:
            path = records[number % len(records)]
            content = host.filesystem.get(path) or b""
            host.filesystem.put(path, content[: len(content) // 2] if number % 2 else b"\x00" * len(content))

    async def reboot(self, hosts: list[Host], fault: Fault) -> None:
        for host in hosts:
            self.fleet.kill(host)
            host.machine.reboot()
            self.fleet.start(host, fault.for_s)

    async def restart(self, hosts: list[Host], fault: Fault) -> None:
        for host in hosts:
            if (life := self.fleet.life_on(host.name)) and life.is_up:
                life.stop()
                while not life.over:
                    await anyio.sleep(1)
                self.fleet.start(host, fault.for_s)

    async def crash(self, hosts: list[Host], fault: Fault) -> None:
        for host in hosts:
            if running := host.machine.running:
                process = running[fault.number % len(running)]
                process.print("Segmentation fault\n", stderr=True)
                process.end(ProcessExit(signal=11))

    async def stolen_port(self, hosts: list[Host], fault: Fault) -> None:
        port = DEFAULT_BASE_PORT + 1 + fault.number % (PORTS_PER_NODE // 2)
        free = [host for host in hosts if all(process.port != port for process in host.groups)]
        for host in free:
            host.machine.strangers[port] = FakeBackend()
        await anyio.sleep(fault.for_s)
        for host in free:
            host.machine.strangers.pop(port, None)

    async def disk_full(self, hosts: list[Host], fault: Fault) -> None:
        for host in hosts:
            host.filesystem.capacity_bytes = 1 + fault.number % 2000
        await anyio.sleep(fault.for_s)
        for host in hosts:
            host.filesystem.capacity_bytes = None

    async def slow_registry(self, _hosts: list[Host], fault: Fault) -> None:
        self.fleet.backends.slow = True
        await anyio.sleep(fault.for_s)
        self.fleet.backends.slow = False

    async def lying_registry(self, _hosts: list[Host], fault: Fault) -> None:
        self.fleet.backends.lie(lying=True)
        await anyio.sleep(fault.for_s)
        self.fleet.backends.lie(lying=False)

    async def registry_offline(self, _hosts: list[Host], fault: Fault) -> None:
        self.fleet.backends.set_offline(offline=True)
        await anyio.sleep(fault.for_s)
        self.fleet.backends.set_offline(offline=False)

    async def store_offline(self, _hosts: list[Host], fault: Fault) -> None:
        self.fleet.objects.offline = True
        await anyio.sleep(fault.for_s)
        self.fleet.objects.offline = False

    async def slow_store(self, _hosts: list[Host], fault: Fault) -> None:
        self.fleet.objects.slow = True
        await anyio.sleep(fault.for_s)
        self.fleet.objects.slow = False

    async def lying_store(self, _hosts: list[Host], fault: Fault) -> None:
        self.fleet.objects.lies = LIES[fault.number % len(LIES)]
        await anyio.sleep(fault.for_s)
        self.fleet.objects.lies = ""

    async def changed_object(self, _hosts: list[Host], fault: Fault) -> None:
        models = list(self.fleet.frontend.cluster.policies)
        number, model = divmod(fault.number, len(models))
        self.fleet.desk.change(models[model], deleted=number % 4 == 0)

    async def clock_jump(self, hosts: list[Host], fault: Fault) -> None:
        for host in hosts:
            host.clock.off_s = (fault.number % 2001 - 1000) / 1000 * _DAY_S
