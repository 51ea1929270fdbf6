"""A whole worker in memory that ends in some way, and the next one on the same machine, in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest
from dependency_injector import providers

from localai_worker.adapters.memory.bus import InMemoryBroker, InMemoryMessageBus
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.frontend import InMemoryFrontend
from localai_worker.adapters.memory.machine import InMemoryMachine
from localai_worker.app.container import Container, build_worker
from localai_worker.app.memory_container import in_memory
from localai_worker.app.simulator.frontend import SimulatedFrontend
from localai_worker.app.simulator.nats_users import NatsUsers
from localai_worker.app.startup import leaves
from localai_worker.app.testing import VIRTUAL_TIME, AnyioBackend, memory_settings
from localai_worker.app.worker import Worker
from localai_worker.domain.enrol import NotRegistered
from localai_worker.domain.errors import NoResponders
from localai_worker.domain.messages.node_status import LoadedModel
from localai_worker.domain.messages.subjects import NodeSubjects
from localai_worker.domain.node import NodeId
from localai_worker.domain.ports.state_lock import StateInUse


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@dataclass
class Place:
    """What stays while workers come and go: the machine, its disk, the bus and the frontend."""

    machine: InMemoryMachine = field(default_factory=InMemoryMachine)
    disk: InMemoryFileSystem = field(default_factory=InMemoryFileSystem)
    registry: InMemoryFrontend = field(default_factory=lambda: InMemoryFrontend(token="s3cret"))
    broker: InMemoryBroker = field(default_factory=InMemoryBroker)

    def __post_init__(self) -> None:
        self.machine.connections = None

    async def build(self, **environment: str) -> Worker:
        container = Container(settings=memory_settings(**environment), environment={"PATH": "/bin"})
        parts = in_memory(container)
        parts.machine.override(providers.Object(self.machine))
        parts.filesystem.override(providers.Object(self.disk))
        parts.registry.override(providers.Object(self.registry))
        container.broker.override(providers.Object(self.broker))
        self.frontend = SimulatedFrontend(
            bus=container.bus(), registry=self.registry, inference=parts.backend_client(), token="s3cret"
        )
        return await build_worker(container)

    @asynccontextmanager
    async def worker(self, **environment: str) -> AsyncIterator[Worker]:
        """A worker that takes commands, until the block ends it in some way."""
        worker = await self.build(**environment)
        async with anyio.create_task_group() as tasks:
            await tasks.start(worker.run)
            yield worker

    async def install(self, node_id: NodeId, backend: str = "tiny") -> str:
        run_file = memory_settings().backends_path / backend / "run.sh"
        if await self.disk.stat(run_file) is None:
            self.disk.put(run_file, b"#!/bin/sh\n")
        return await self.frontend.install(node_id, backend, model_id=backend)

    @property
    def calls(self) -> list[str]:
        """The calls the frontend got since it was last asked, heartbeats left out."""
        calls = [call.endpoint for call in self.registry.calls if call.endpoint != "heartbeat"]
        self.registry.calls.clear()
        return calls


def kill(worker: Worker) -> None:
    """SIGKILL: it knows of nothing any more, and so cannot leave in good order."""
    worker.supervisor.table.entries.clear()
    worker.enrolment.registered = None


@pytest.fixture
def place() -> Place:
    return Place()


async def test_after_a_kill_the_next_worker_has_the_same_backends_and_the_frontend_its_rows(
    place: Place,
) -> None:
    """S-K14: nothing is registered again, and the next install is answered at once."""
    async with place.worker() as worker:
        node_id = worker.enrolment.node_id
        address = await place.install(node_id)
        before = worker.supervisor.replicas
        row = LoadedModel(model_name="tiny", address=address, state="loaded", in_flight=1)
        place.registry.put_model(node_id, row)
        kill(worker)
        place.calls.clear()
        worker.stop_requested.set()
    assert len(place.machine.running) == 1
    place.registry.calls.clear()
    async with place.worker() as worker:
        assert worker.supervisor.replicas == before
        assert await place.install(node_id) == address
        assert place.calls == ["models"]
        assert place.registry.row(node_id).models[("tiny", 0)].in_flight == 1
        place.registry.add_in_flight(node_id, "tiny", -1)
        worker.stop_requested.set()
    assert not place.machine.running


async def test_a_worker_that_left_in_good_order_leaves_nothing_to_resume(place: Place) -> None:
    async with place.worker() as worker:
        await place.install(worker.enrolment.node_id)
        worker.stop_requested.set()
    assert not place.machine.running
    assert not place.machine.keepers
    assert place.calls[-2:] == ["deregister", "drain"]
    async with place.worker() as worker:
        assert place.calls == ["register"]
        worker.stop_requested.set()


async def test_with_keep_backends_a_signal_leaves_them_up_and_the_node_in_place(place: Place) -> None:
    """For upgrading the worker under load: no drain, no deregistration, requests go on."""
    async with place.worker(LOCALAI_WORKER_KEEP_BACKENDS="true") as worker:
        node_id = worker.enrolment.node_id
        address = await place.install(node_id)
        place.calls.clear()
        worker.stop_requested.set()
    assert "drain" not in place.calls
    assert place.registry.row(node_id).status == "healthy"
    assert len(place.machine.running) == 1
    async with place.worker() as worker:
        assert await place.install(node_id) == address
        assert place.calls == ["models"]
        worker.stop_requested.set()


async def test_a_resumed_node_keeps_its_rows_while_the_bus_is_away(place: Place) -> None:
    """S-K23: it beats from the start, so the frontend does not take the node for lost."""
    async with place.worker(LOCALAI_WORKER_KEEP_BACKENDS="true") as worker:
        node_id = worker.enrolment.node_id
        address = await place.install(node_id)
        place.registry.put_model(node_id, LoadedModel(model_name="tiny", address=address, state="loaded"))
        worker.stop_requested.set()
    place.broker.offline = True
    worker = await place.build()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        for _ in range(20):
            await anyio.sleep(15)
            place.registry.monitor(place.registry.clock.now())
            assert place.registry.row(node_id).status == "healthy"
        place.broker.offline = False
        await anyio.sleep(1)
        assert await place.install(node_id) == address
        assert "register" not in place.calls[1:]
        assert place.registry.row(node_id).models
        worker.stop_requested.set()


@pytest.mark.parametrize("mints", [False, True])
async def test_a_resumed_node_that_is_forgotten_while_the_bus_is_away_serves_under_its_new_id(
    place: Place, mints: bool
) -> None:
    """H-18: and under that one only, with the login for it."""
    users = NatsUsers(now_s=lambda: place.registry.clock.now().timestamp())
    own = users.mint("frontend")
    if mints:
        place.registry.credentials = users.mint_worker
        place.broker.admits = lambda given: given is not None
    async with place.worker(LOCALAI_WORKER_KEEP_BACKENDS="true") as worker:
        old = worker.enrolment.node_id
        await place.install(old)
        worker.stop_requested.set()
    place.broker.offline = True
    worker = await place.build()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        await anyio.sleep(15)
        place.registry.admin_delete(old)
        await anyio.sleep(60)
        new = worker.enrolment.node_id
        assert new != old
        place.broker.offline = False
        await anyio.sleep(1)
        bus = InMemoryMessageBus(place.broker)
        await bus.login(own)
        await bus.open()
        await bus.request(NodeSubjects(new).list, b"{}", timeout_s=5)
        with pytest.raises(NoResponders):
            await bus.request(NodeSubjects(old).list, b"{}", timeout_s=5)
        worker.stop_requested.set()


async def test_kept_backends_end_when_nobody_comes_back(place: Place) -> None:
    environment = {"LOCALAI_WORKER_KEEP_BACKENDS": "true", "LOCALAI_WORKER_ADOPTION_WINDOW": "10s"}
    async with place.worker(**environment) as worker:
        await place.install(worker.enrolment.node_id)
        worker.stop_requested.set()
    await anyio.sleep(9)
    assert place.machine.running
    await anyio.sleep(2)
    assert not place.machine.running


async def test_a_frontend_that_stops_the_node_stops_its_backends_too(place: Place) -> None:
    """The operator keeps them for the next worker of this node; the frontend wants no such node."""
    async with place.worker(LOCALAI_WORKER_KEEP_BACKENDS="true") as worker:
        await place.install(worker.enrolment.node_id)
        await place.frontend.node_stop(worker.enrolment.node_id)
    assert not place.machine.running
    assert place.calls[-2:] == ["deregister", "drain"]


async def test_a_backend_that_survived_its_stop_is_left_to_the_keeper(place: Place) -> None:
    async with place.worker() as worker:
        await place.install(worker.enrolment.node_id)
        program = place.machine.processes[0].program
        program.held_by_kernel = True
        worker.stop_requested.set()
    assert place.machine.running
    program.held_by_kernel = False
    await anyio.sleep(121)
    assert not place.machine.running


async def test_a_start_that_fails_leaves_what_it_adopted_to_the_next_one(place: Place) -> None:
    """A wrong token, or a frontend that is away too long, must not cost the backends that serve."""
    async with place.worker() as worker:
        await place.install(worker.enrolment.node_id)
        kill(worker)
        worker.stop_requested.set()
    place.registry.token = "changed"
    failing = await place.build()
    with pytest.raises(BaseExceptionGroup) as caught:
        await failing.run()
    assert [type(error) for error in leaves(caught.value)] == [NotRegistered]
    assert len(place.machine.running) == 1
    place.registry.token = "s3cret"
    async with place.worker() as worker:
        assert len(worker.supervisor.replicas) == 1
        worker.stop_requested.set()


async def test_a_second_worker_on_one_state_directory_ends_at_once_and_harms_nothing(place: Place) -> None:
    """S-K04: two workers of one name would both act on every command."""
    async with place.worker() as worker:
        await place.install(worker.enrolment.node_id)
        place.calls.clear()
        with pytest.raises(StateInUse, match="runs already"):
            await (await place.build()).run()
        assert place.calls == []
        assert len(place.machine.running) == 1
        worker.stop_requested.set()


async def test_a_backend_that_died_while_no_worker_ran_makes_the_node_register(place: Place) -> None:
    """The frontend's row of it would lead requests to nobody, or to a stranger."""
    async with place.worker() as worker:
        node_id = worker.enrolment.node_id
        address = await place.install(node_id)
        place.registry.put_model(node_id, LoadedModel(model_name="tiny", address=address, state="loaded"))
        kill(worker)
        worker.stop_requested.set()
    place.machine.reboot()
    place.registry.calls.clear()
    async with place.worker() as worker:
        assert place.calls == ["models", "register"]
        assert place.registry.row(node_id).models == {}
        worker.stop_requested.set()
