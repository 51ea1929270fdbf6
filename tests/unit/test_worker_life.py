"""The worker's life in virtual time: the order in which it comes up, and every way in which it ends."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import pytest
from dependency_injector import providers

from localai_worker.adapters.http_server.serve import CannotListen
from localai_worker.adapters.memory.backend import FakeBackend
from localai_worker.adapters.memory.bus import InMemoryBroker, InMemoryMessageBus
from localai_worker.adapters.memory.frontend import InMemoryFrontend
from localai_worker.adapters.memory.http_server import InMemoryHttpServer
from localai_worker.adapters.memory.machine import FakeProgram, InMemoryMachine
from localai_worker.app.container import Container, build_worker
from localai_worker.app.memory_container import MemoryParts, in_memory
from localai_worker.app.simulator.frontend import SimulatedFrontend
from localai_worker.app.simulator.nats_users import NatsUsers
from localai_worker.app.startup import leaves
from localai_worker.app.testing import GALLERY, memory_settings
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.app.worker import Worker
from localai_worker.domain.bus_credentials import BusCredentials
from localai_worker.domain.enrol import NotRegistered
from localai_worker.domain.errors import BusUnavailable, NoResponders, SubscriptionDenied
from localai_worker.domain.galleries import Gallery
from localai_worker.domain.messages.node_status import LoadedModel
from localai_worker.domain.messages.registration import RegisterReply
from localai_worker.domain.messages.subjects import NodeSubjects
from localai_worker.domain.node import NodeId

TOKEN = "s3cret"


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@dataclass(kw_only=True)
class WatchedFrontend(InMemoryFrontend):
    """Lets a test look at the worker the moment it calls; the observations, in order."""

    look: Callable[[], object] = field(default=lambda: None)
    while_beating: Callable[[], Awaitable[object]] | None = None
    seen: list[tuple[str, object]] = field(default_factory=list)
    answers: list[object] = field(default_factory=list)

    async def register(self, body: bytes, authorization: str) -> RegisterReply:
        self.seen.append(("register", self.look()))
        return await super().register(body, authorization)

    async def heartbeat(self, node_id: str, body: bytes, authorization: str) -> None:
        self.seen.append(("heartbeat", self.look()))
        if self.while_beating is not None:
            self.answers.append(await self.while_beating())
        await super().heartbeat(node_id, body, authorization)

    async def drain(self, node_id: str, authorization: str) -> None:
        self.seen.append(("drain", self.look()))
        await super().drain(node_id, authorization)

    async def deregister(self, node_id: str, authorization: str) -> None:
        self.seen.append(("deregister", self.look()))
        await super().deregister(node_id, authorization)


@dataclass
class Stage:
    """A worker that has not been started, and everything around it."""

    container: Container
    parts: MemoryParts
    worker: Worker
    registry: WatchedFrontend
    bus: InMemoryMessageBus
    frontend: SimulatedFrontend
    failures: list[BaseException] = field(default_factory=list)
    ended_s: float | None = None

    @property
    def broker(self) -> InMemoryBroker:
        broker: InMemoryBroker = self.container.broker()
        return broker

    @property
    def http(self) -> InMemoryHttpServer:
        return self.parts.http()

    @property
    def machine(self) -> InMemoryMachine:
        return self.parts.machine()

    @property
    def node_id(self) -> NodeId:
        return self.worker.enrolment.node_id

    @property
    def endpoints(self) -> list[str]:
        """The calls the frontend got, heartbeats left out."""
        return [call.endpoint for call in self.registry.calls if call.endpoint != "heartbeat"]

    def mint_logins(self, lifetime_s: float = 24 * 3600.0) -> None:
        """Let the broker admit only the frontend itself and whom its registry minted a login for."""
        users = NatsUsers(now_s=lambda: self.registry.clock.now().timestamp())
        admitted: dict[BusCredentials, NodeId] = {}

        def mint(node_id: NodeId) -> tuple[str, str]:
            credentials = users.mint(node_id, lifetime_s=lifetime_s)
            admitted[credentials] = node_id
            return credentials.jwt, credentials.seed

        self.registry.credentials = mint
        own = self.bus.credentials = users.mint("frontend")
        now = self.registry.clock.now
        self.broker.admits = lambda given: (
            given == own or (given in admitted and given.expires_at is not None and now() < given.expires_at)
        )

    async def live(self) -> None:
        """Run the worker to its end; failures are kept."""
        try:
            await self.worker.run()
        except BaseExceptionGroup as group:
            self.failures.extend(leaves(group))
        finally:
            self.ended_s = anyio.current_time()

    async def install(self, model: str, program: FakeProgram | None = None) -> None:
        """Have a backend of its own started for `model`."""
        uri = f"ocifile:///images/{model}.tar"
        indexes = self.parts.gallery_source().indexes
        indexes[GALLERY.url] = [*indexes.get(GALLERY.url, ()), {"name": model, "uri": uri}]
        self.parts.artifacts().trees[uri] = {"run.sh": b"#!/bin/sh\n"}
        self.parts.processes().programs[model] = program or FakeProgram()
        gallery = Gallery(GALLERY.name, GALLERY.url)
        await self.frontend.install(self.node_id, model, model_id=model, galleries=[gallery])

    def assert_nothing_is_left(self) -> None:
        assert self.machine.running == ()
        assert not self.http.serving
        assert not self.worker.bus.connected


@pytest.fixture
async def stage() -> Stage:
    container = Container(settings=memory_settings(), environment={"PATH": "/bin"})
    parts = in_memory(container)
    registry = WatchedFrontend(token=TOKEN)
    parts.registry.override(providers.Object(registry))
    worker = await build_worker(container)
    bus = InMemoryMessageBus(container.broker())
    await bus.open()
    frontend = SimulatedFrontend(bus=bus, registry=registry, inference=parts.backend_client(), token=TOKEN)
    return Stage(container, parts, worker, registry, bus, frontend)


async def test_the_worker_is_up_in_an_order_in_which_no_call_meets_a_closed_door(stage: Stage) -> None:
    """H-20: it registers when it could serve files, and beats when it takes commands."""
    stage.registry.look = lambda: (stage.http.bound, stage.worker.bus.connected)
    async with anyio.create_task_group() as tasks:
        node_id = await tasks.start(stage.worker.run)
        assert node_id in stage.registry.nodes
        await anyio.sleep(25)
        stage.worker.stop_requested.set()
    assert stage.registry.seen[:4] == [
        ("register", (True, True)),
        ("heartbeat", (True, True)),
        ("heartbeat", (True, True)),
        ("heartbeat", (True, True)),
    ]


async def test_commands_are_taken_before_the_first_heartbeat(stage: Stage) -> None:
    stage.registry.while_beating = lambda: stage.frontend.list_backends(stage.node_id)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stage.live)
        await anyio.sleep(5)
        stage.worker.stop_requested.set()
    assert stage.failures == []
    assert stage.registry.answers == [()]


async def test_a_frontend_that_waits_for_answers_gets_past_the_moment_between(stage: Stage) -> None:
    """A node is healthy when it registers, and listens a moment later."""
    node_id = stage.registry.ids("node-1", 0)
    with pytest.raises(NoResponders):
        await stage.frontend.wait_until_it_answers(node_id, timeout_s=5)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stage.live)
        await stage.frontend.wait_until_it_answers(node_id)
        await stage.frontend.list_backends(node_id)
        stage.worker.stop_requested.set()


async def test_a_taken_http_port_ends_it_before_it_registers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken() -> int:
        raise CannotListen("0.0.0.0", 50050, "Address already in use")

    monkeypatch.setattr(stage.http, "bind", taken)
    with pytest.raises(CannotListen):
        await stage.worker.run()
    assert stage.endpoints == []
    stage.assert_nothing_is_left()


async def test_a_stop_while_the_bus_is_awaited_ends_it_at_once(stage: Stage) -> None:
    stage.broker.offline = True
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stage.live)
        await anyio.sleep(1000)
        assert stage.ended_s is None
        stage.worker.stop_requested.set()
    assert stage.ended_s == 1000
    assert stage.failures == []
    assert stage.endpoints == []
    stage.assert_nothing_is_left()


async def test_a_stop_between_two_registrations_ends_it_at_once(stage: Stage) -> None:
    stage.registry.offline = True
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stage.live)
        await anyio.sleep(20)
        stage.worker.stop_requested.set()
    assert stage.ended_s == 20
    assert stage.failures == []
    assert stage.endpoints == ["register"] * 4  # after 0, 2, 6 and 14 s
    stage.assert_nothing_is_left()


async def test_a_frontend_that_stays_away_ends_it_after_a_hundred_attempts(stage: Stage) -> None:
    stage.registry.offline = True
    with pytest.RaisesGroup(NotRegistered, flatten_subgroups=True) as caught:
        await stage.worker.run()
    (failure,) = leaves(caught.value)
    assert isinstance(failure, NotRegistered)
    assert failure.attempts == 100
    assert stage.endpoints == ["register"] * 100
    assert anyio.current_time() == 2 + 4 + 8 + 16 + 95 * 30
    stage.assert_nothing_is_left()


async def test_a_refused_registration_ends_it_at_once_and_leaves_nothing(stage: Stage) -> None:
    stage.registry.answer_next(401)
    await stage.live()
    assert [type(failure) for failure in stage.failures] == [NotRegistered]
    assert stage.endpoints == ["register"]
    assert stage.ended_s == 0
    stage.assert_nothing_is_left()


async def test_a_denied_subscription_ends_it_and_the_node_leaves_in_good_order(stage: Stage) -> None:
    stage.broker.denied_subjects = ("nodes.*.backend.install",)
    await stage.live()
    assert [type(failure) for failure in stage.failures] == [SubscriptionDenied]
    assert stage.endpoints == ["register", "drain", "models", "deregister", "drain"]
    stage.assert_nothing_is_left()


async def test_a_node_that_was_forgotten_takes_commands_under_its_new_id(stage: Stage) -> None:
    """H-18, S-K14: the process that runs is found again, under the new subjects only."""
    async with anyio.create_task_group() as tasks:
        old = await tasks.start(stage.worker.run)
        await stage.install("qwen")
        (before,) = stage.worker.supervisor.replicas
        stage.registry.admin_delete(old)
        await anyio.sleep(35)
        new = stage.node_id
        assert new != old
        await stage.install("qwen")
        assert stage.worker.supervisor.replicas == (before,)
        with pytest.raises(NoResponders):
            await stage.bus.request(NodeSubjects(old).list, b"{}", timeout_s=5)
        stage.worker.stop_requested.set()
    assert stage.registry.row(new).status == "draining"
    stage.assert_nothing_is_left()


async def test_a_node_that_moves_is_heard_under_both_ids_before_it_leaves_the_old_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S-K02: whichever id a frontend uses at that moment, somebody listens."""
    answers: list[object] = []
    leave = stage.worker.control.leave

    async def ask_both_and_leave(old: NodeId) -> None:
        for node_id in (old, stage.node_id):
            answers.append((node_id, await stage.frontend.list_backends(node_id)))
        await leave(old)

    monkeypatch.setattr(stage.worker.control, "leave", ask_both_and_leave)
    async with anyio.create_task_group() as tasks:
        old = await tasks.start(stage.worker.run)
        stage.registry.admin_delete(old)
        await anyio.sleep(35)
        assert answers == [(old, ()), (stage.node_id, ())]
        stage.worker.stop_requested.set()


async def test_a_worker_whose_login_the_frontend_mints_registers_before_it_connects(stage: Stage) -> None:
    """H-20, S-W06: there is no other way in; commands are taken before the first heartbeat all the same."""
    stage.mint_logins()
    stage.registry.look = lambda: (stage.http.bound, stage.worker.bus.connected)
    async with anyio.create_task_group() as tasks:
        node_id = await tasks.start(stage.worker.run)
        assert await stage.frontend.list_backends(node_id) == ()
        await anyio.sleep(5)
        stage.worker.stop_requested.set()
    assert stage.registry.seen[:2] == [("register", (True, False)), ("heartbeat", (True, True))]


async def test_a_forgotten_node_moves_with_a_login_for_its_new_id(stage: Stage) -> None:
    """H-18, N-B23: a minted login is for one id only, so the old one is left first."""
    stage.mint_logins()
    async with anyio.create_task_group() as tasks:
        old = await tasks.start(stage.worker.run)
        stage.registry.admin_delete(old)
        await anyio.sleep(35)
        new = stage.node_id
        assert new != old
        assert await stage.frontend.list_backends(new) == ()
        with pytest.raises(NoResponders):
            await stage.bus.request(NodeSubjects(old).list, b"{}", timeout_s=5)
        stage.worker.stop_requested.set()
    assert stage.failures == []
    stage.assert_nothing_is_left()


async def test_a_renewed_login_disturbs_no_command(stage: Stage) -> None:
    """N-B4: backends run on, and commands are answered before, while and after."""
    stage.mint_logins(lifetime_s=3600)
    async with anyio.create_task_group() as tasks:
        node_id = await tasks.start(stage.worker.run)
        await stage.install("qwen")
        (before,) = stage.worker.supervisor.replicas
        for _ in range(4 * 60):
            await anyio.sleep(60)
            await stage.frontend.list_backends(node_id)
        await stage.install("qwen")
        assert stage.worker.supervisor.replicas == (before,)
        stage.worker.stop_requested.set()
    assert 4 <= stage.endpoints.count("register") <= 6
    stage.assert_nothing_is_left()


async def test_heartbeats_go_on_while_the_bus_is_away(stage: Stage) -> None:
    """S-K23, N-B23: models on the node still answer, so the frontend must not take it for lost."""
    async with anyio.create_task_group() as tasks:
        node_id = await tasks.start(stage.worker.run)
        await anyio.sleep(1)
        stage.broker.offline = True
        for _ in range(8):
            await anyio.sleep(15)
            stage.registry.monitor(stage.registry.clock.now())
            assert stage.registry.row(node_id).status == "healthy"
        stage.broker.offline = False
        assert await stage.frontend.list_backends(node_id) == ()
        stage.worker.stop_requested.set()
    assert stage.endpoints.count("register") == 1


async def test_a_bus_that_gives_up_ends_it_with_the_reason(stage: Stage) -> None:
    """N-B28: a worker that can hear nothing any more does not live on as if all were well."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stage.live)
        await anyio.sleep(5)
        await stage.worker.bus.close()
    assert {type(failure) for failure in stage.failures} == {BusUnavailable}
    subject = NodeSubjects(stage.node_id).list
    assert any(f"{subject} is unavailable: the bus has ended" in str(failure) for failure in stage.failures)
    assert stage.endpoints[-2:] == ["deregister", "drain"]
    stage.assert_nothing_is_left()


async def test_it_drains_then_stops_its_backends_then_deregisters(stage: Stage) -> None:
    """H-16, S-K22: requests in flight are waited for; the backends run until the last is answered."""
    stage.registry.generation = "seed"  # a newer frontend forgets its rows when it drains
    stage.registry.look = lambda: len(stage.machine.running)
    async with anyio.create_task_group() as tasks:
        await tasks.start(stage.worker.run)
        await stage.install("qwen")
        stage.registry.put_model(stage.node_id, LoadedModel(model_name="qwen", in_flight=1))
        began_s = anyio.current_time()
        stage.worker.stop_requested.set()
        await anyio.sleep(10)
        assert len(stage.machine.running) == 1
        stage.registry.add_in_flight(stage.node_id, "qwen", -1)
        await anyio.sleep(2)
        assert not stage.machine.running
    assert [seen for seen in stage.registry.seen if seen[0] != "heartbeat"] == [
        ("register", 0),
        ("drain", 1),
        ("deregister", 0),
        ("drain", 0),
    ]
    assert anyio.current_time() - began_s <= 12
    assert stage.machine.processes[0].backend.freed == 1
    stage.assert_nothing_is_left()


async def test_a_newer_frontend_forgets_its_rows_and_its_requests_are_answered_all_the_same(
    stage: Stage,
) -> None:
    """H-30, S-K15: the rows go with the drain; clients of the backends' ports tell what is in flight."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(stage.worker.run)
        await stage.install("qwen")
        (replica,) = stage.worker.supervisor.replicas
        stage.registry.put_model(stage.node_id, LoadedModel(model_name="qwen", in_flight=1))
        stage.machine.connections = {replica.port: 1, replica.port + 1: 7}
        stage.worker.stop_requested.set()
        await anyio.sleep(10)
        assert stage.registry.row(stage.node_id).models == {}
        assert len(stage.machine.running) == 1
        stage.machine.connections[replica.port] = 0
        await anyio.sleep(2)
        assert not stage.machine.running
    stage.assert_nothing_is_left()


async def test_where_connections_cannot_be_counted_the_frontends_rows_decide(stage: Stage) -> None:
    stage.machine.connections = None
    async with anyio.create_task_group() as tasks:
        await tasks.start(stage.worker.run)
        await stage.install("qwen")
        began_s = anyio.current_time()
        stage.worker.stop_requested.set()
    assert anyio.current_time() - began_s < 1
    stage.assert_nothing_is_left()


async def test_requests_that_never_end_are_waited_for_half_a_minute(stage: Stage) -> None:
    stage.registry.generation = "seed"
    async with anyio.create_task_group() as tasks:
        await tasks.start(stage.worker.run)
        stage.registry.put_model(stage.node_id, LoadedModel(model_name="qwen", in_flight=1))
        began_s = anyio.current_time()
        stage.worker.stop_requested.set()
    assert anyio.current_time() - began_s == 30
    assert stage.endpoints[-2:] == ["deregister", "drain"]


async def test_in_a_hurry_neither_requests_nor_free_are_waited_for(stage: Stage) -> None:
    stage.registry.generation = "seed"
    async with anyio.create_task_group() as tasks:
        await tasks.start(stage.worker.run)
        await stage.install("qwen", FakeProgram(backend=FakeBackend(hangs=frozenset({"free"}))))
        stage.registry.put_model(stage.node_id, LoadedModel(model_name="qwen", in_flight=1))
        stage.worker.stop_requested.set()
        await anyio.sleep(3)
        assert len(stage.machine.running) == 1
        hurried_s = anyio.current_time()
        stage.worker.hurry.set()
    assert anyio.current_time() - hurried_s < 1
    assert stage.endpoints[-2:] == ["deregister", "drain"]
    stage.assert_nothing_is_left()


async def test_a_cancelled_worker_still_leaves_in_good_order(stage: Stage) -> None:
    async with anyio.create_task_group() as tasks:
        await tasks.start(stage.worker.run)
        await stage.install("qwen")
        tasks.cancel_scope.cancel()
    assert stage.endpoints == ["register", "drain", "models", "deregister", "drain"]
    assert stage.registry.row(stage.node_id).status == "draining"
    stage.assert_nothing_is_left()


async def test_a_pending_node_stays_pending_when_its_worker_stops(stage: Stage) -> None:
    """H-17: a drain would make the next registration healthy without an approval."""
    stage.registry.auto_approve = False
    async with anyio.create_task_group() as tasks:
        await tasks.start(stage.worker.run)
        stage.worker.stop_requested.set()
    assert stage.endpoints == ["register"]
    assert stage.registry.row(stage.node_id).status == "pending"


@pytest.mark.parametrize("outage", ["bus", "frontend", "slow frontend", "everything"])
async def test_it_ends_within_two_minutes_whatever_is_down(stage: Stage, outage: str) -> None:
    """Every step on the way down has a bound: a service manager kills what takes too long."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(stage.worker.run)
        await stage.install("qwen", FakeProgram(backend=FakeBackend(hangs=frozenset({"free"})), term_s=60))
        stage.broker.offline = outage in {"bus", "everything"}
        stage.registry.offline = outage in {"frontend", "everything"}
        stage.registry.slow_s = 1000 if outage == "slow frontend" else 0
        began_s = anyio.current_time()
        stage.worker.stop_requested.set()
    assert anyio.current_time() - began_s < 120
    stage.assert_nothing_is_left()
