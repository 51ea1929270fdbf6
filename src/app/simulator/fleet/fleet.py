"""The fleet itself: machines, the workers that live on them, and the frontend that drives them."""

import asyncio
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from ....adapters.memory.frontend import InMemoryFrontend
from ....domain.node import NodeId
from ..cluster import Cluster
from ..frontend import SimulatedFrontend
from .assembly import AssemblyLine, Surroundings
from .broker import FleetBroker
from .echo import EchoingBus
from .figures import Figures
from .frontend import FleetFrontend
from .history import History
from .host import Host
from .inference import FleetFiles, FleetInference
from .invariants import Invariants
from .life import Life
from .models import policies_of
from .node_files import NodeFiles
from .object_desk import ObjectDesk
from .objects import FleetObjectStore
from .plan import TOKEN, FleetPlan
from .registry import BackendRegistry
from .watch import LifeWatch

SYSTEMD_S = 10.0  # after which a worker that could not come up is started again


@dataclass(eq=False)
class Fleet:
    """Everything that is simulated; `run` plays the frontend and starts the workers, until cancelled."""

    plan: FleetPlan
    history: History
    rules: Invariants
    figures: Figures
    hosts: list[Host] = field(init=False)
    broker: FleetBroker = field(init=False)
    registry: InMemoryFrontend = field(init=False)
    backends: BackendRegistry = field(init=False)
    objects: FleetObjectStore = field(init=False)
    desk: ObjectDesk = field(init=False)
    assembly: AssemblyLine = field(init=False)
    frontend: FleetFrontend = field(init=False)
    bus: EchoingBus = field(init=False)
    _lives: dict[str, Life] = field(default_factory=dict)
    _started: dict[str, int] = field(default_factory=dict)
    _to_look_at: dict[Life, None] = field(default_factory=dict)
    _dead: dict[Life, asyncio.Task[None]] = field(default_factory=dict)
    _tasks: TaskGroup | None = None
    _frontend_scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _restarts: int = 0  # of the frontend, that are under way
    _frontend_may_run: anyio.Event = field(default_factory=anyio.Event)

    def __post_init__(self) -> None:
        plan = self.plan
        self.hosts = [
            Host(number, plan.random("host", number), plan.has_store(number)) for number in range(plan.nodes)
        ]
        by_name = {host.name: host for host in self.hosts}
        self.broker = FleetBroker(plan.random("broker"), self.rules.replies.asked)
        self.registry = InMemoryFrontend(token=TOKEN, generation=plan.generation)
        self.registry.calls = type(self.registry.calls)(maxlen=100)
        self.backends = BackendRegistry(plan.random("registry"))
        self.objects = self.rules.store
        self.assembly = AssemblyLine(Surroundings(self.broker, self.registry, self.backends, self.objects))
        self.bus = EchoingBus(self.broker)
        self.desk = ObjectDesk(self.objects, plan.random("desk"))
        cluster = Cluster(self.registry, {policy.model: policy for policy in policies_of(plan)})
        sim = SimulatedFrontend(
            bus=self.bus,
            registry=self.registry,
            inference=FleetInference(by_name, plan.random("inference")),
            token=TOKEN,
            ranged=self.desk.ranged,
        )
        over_http = FleetFiles(self.life_on, plan.random("files"))
        self.frontend = FleetFrontend(
            sim=sim,
            registry=self.registry,
            cluster=cluster,
            files=NodeFiles(sim, by_name, over_http, self.desk),
            random=plan.random("frontend"),
            figures=self.figures,
            history=self.history,
        )

    async def run(self) -> None:
        """Start everything, machines one after the other within 10 s, and go on until cancelled."""
        await self.bus.open()
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            self._frontend_may_run.set()
            tasks.start_soon(self._play_frontend)
            for number, host in enumerate(self.hosts):
                tasks.start_soon(self._start_later, host, 10.0 * number / len(self.hosts))
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    for life in self.lives:
                        life.kill()
                    for life in (*self._dead, *self.lives):
                        await life.clear_away()

    def life_on(self, name: str) -> Life | None:
        """The worker on the machine called `name`, if one lives there."""
        return self._lives.get(name)

    @property
    def lives(self) -> list[Life]:
        return list(self._lives.values())

    def kill(self, host: Host) -> None:
        """SIGKILL the worker, wherever it is."""
        life = self._lives.pop(host.name, None)
        if life is None:
            return
        self.history.add(host.name, "the worker is killed")
        life.kill()
        self._dead[life] = asyncio.get_running_loop().create_task(self._clear_away(life))
        self.rules.gone(life)
        self.rules.machines.after_death(host)
        self.rules.objects.look(host)

    def start(self, host: Host, in_s: float = 0.0) -> None:
        """Start a worker on the machine, unless one lives there by then."""
        assert self._tasks is not None
        self._tasks.start_soon(self._start_later, host, in_s)

    async def restart_frontend(self, away_s: float, *, wiped: bool = False, replaced: bool = False) -> None:
        """Stop the frontend, and start it again later; what it was doing is lost.

        `wiped`: and all it knew; `replaced`: the one that starts is of the other generation.
        """
        if self._restarts == 0:
            self._frontend_may_run = anyio.Event()
        self._restarts += 1
        self.registry.offline = True
        self._frontend_scope.cancel()
        if wiped:
            self.frontend.forget_everything()
        if replaced:
            self.registry.generation = "newer" if self.registry.generation == "seed" else "seed"
        await anyio.sleep(away_s)
        self._restarts -= 1
        if self._restarts == 0:
            self.registry.offline = False
            self._frontend_may_run.set()

    def node_id(self, host: Host) -> NodeId | None:
        """How the frontend calls the machine; None where it does not know it."""
        row = self.registry.named(host.name)
        return row.id if row else None

    async def _clear_away(self, life: Life) -> None:
        await life.clear_away()
        del self._dead[life]

    async def _play_frontend(self) -> None:
        while True:
            await self._frontend_may_run.wait()
            with anyio.CancelScope() as self._frontend_scope:
                await self.frontend.run()

    async def _start_later(self, host: Host, in_s: float) -> None:
        await anyio.sleep(in_s)
        if host.name in self._lives:
            return
        number = self._started[host.name] = self._started.get(host.name, 0) + 1
        life = await self.assembly.begin(host, number, self._watch, lambda: self.kill(host))
        if host.name in self._lives:
            return  # another one was quicker
        self._lives[host.name] = life
        self.rules.born(life)
        self.history.add(host.name, f"worker {number} starts")
        life.begin(self._ended)

    def _ended(self, life: Life) -> None:
        """A worker has stopped by itself; one that never came up is started again, as systemd would."""
        host = life.host
        self.history.add(host.name, f"the worker has ended: {life.failure or 'in good order'}")
        if self._lives.get(host.name) is life:
            del self._lives[host.name]
        if life.ready_s is None and not life.stopping:
            life.stopping = True
            life.failure = None
            self.start(host, SYSTEMD_S)
        self.rules.gone(life)

    def _watch(self, life: Life) -> LifeWatch:
        return LifeWatch(life, self.history, self.rules, self._look)

    def _look(self, life: Life) -> None:
        """Compare the worker with its machine as soon as the present step is over."""
        self.rules.touched(life.host)
        if not self._to_look_at:
            asyncio.get_running_loop().call_soon(self._compare)
        self._to_look_at[life] = None

    def _compare(self) -> None:
        lives = tuple(self._to_look_at)
        self._to_look_at.clear()
        for life in lives:
            if not (life.fence.down or life.over):
                self.rules.inspect(life)
