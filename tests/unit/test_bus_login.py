"""Where the login at the bus comes from and when it is renewed, in virtual time."""

import logging
from dataclasses import dataclass, field

import anyio
import pytest

from localai_worker.adapters.memory.bus import InMemoryBroker, InMemoryMessageBus
from localai_worker.adapters.memory.loop_clock import LoopClock
from localai_worker.app.simulator.nats_users import NatsUsers
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.bus_credentials import BusCredentials
from localai_worker.domain.bus_login import BusLogin
from localai_worker.domain.enrol import Enrolment, NotRegistered
from localai_worker.domain.node import NodeId
from localai_worker.domain.ports.hardware import Hardware, Memory
from tests.enrolling import BUSY, GIB, TOKEN, Node

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@dataclass
class Site:
    """A NATS server that lets in whom `open_to_all` or the frontend's account says, and the frontend."""

    open_to_all: bool = False
    mints: bool = True
    lifetime_s: float | None = DAY_S
    clock: LoopClock = field(default_factory=LoopClock)
    minted: list[BusCredentials] = field(default_factory=list)
    refused: set[BusCredentials] = field(default_factory=set)
    node: Node = field(default_factory=Node)
    connected_when_registered: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.users = NatsUsers(now_s=lambda: self.clock.now().timestamp())
        self.broker = InMemoryBroker(admits=self.admits)
        self.bus = InMemoryMessageBus(self.broker)
        self.node.frontend.credentials = self.mint if self.mints else None
        self.enrolment: Enrolment = self.node.enrolment()

    def mint(self, node_id: NodeId) -> tuple[str, str]:
        self.connected_when_registered.append(self.bus.connected)
        credentials = self.users.mint(f"worker of {node_id}", lifetime_s=self.lifetime_s)
        self.minted.append(credentials)
        return credentials.jwt, credentials.seed

    def admits(self, credentials: BusCredentials | None) -> bool:
        if credentials is None or credentials in self.refused:
            return self.open_to_all
        ends = credentials.expires_at
        return credentials in self.minted and (ends is None or self.clock.now() < ends)

    def login(self, fixed: BusCredentials | None = None, *, required: bool = False) -> BusLogin:
        return BusLogin(self.bus, self.enrolment, self.clock, fixed=fixed, required=required)

    @property
    def registrations_s(self) -> list[float]:
        return self.node.came_at_s("register")

    async def keep(self, login: BusLogin, for_s: float) -> None:
        """Enter and keep the login for some time, as a worker does."""

        async def moved(old: NodeId, new: NodeId) -> None:
            assert old == new
            await login.adopt()

        await login.enter()
        with anyio.move_on_after(for_s):
            await login.keep(moved)


# Coming in.


async def test_where_nobody_needs_a_login_the_bus_comes_before_the_registration() -> None:
    """H-20: a router may pick the node the moment it is known."""
    site = Site(open_to_all=True)
    site.broker.offline = True
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.login().enter)
        await anyio.sleep(1000)
        assert site.registrations_s == []
        site.broker.offline = False
    assert site.registrations_s == [1000]
    assert site.connected_when_registered == [True]


async def test_a_login_that_a_registration_brings_is_used_at_once() -> None:
    """S-W06: also where the server let the worker in without."""
    site = Site(open_to_all=True)
    await site.login().enter()
    assert site.bus.credentials == site.minted[0]
    assert site.bus.connected


async def test_where_the_server_wants_a_login_the_frontend_is_asked_for_one() -> None:
    """S-W06: no switch is needed for that."""
    site = Site()
    node_id = await site.login().enter()
    assert node_id == site.node.row.id
    assert site.bus.credentials == site.minted[0]
    assert site.bus.connected
    assert len(site.registrations_s) == 1


async def test_a_worker_that_must_have_credentials_waits_for_its_approval() -> None:
    """S-W06, H-3a932a980: with growing pauses, up to 30 s, and for as long as it takes."""
    site = Site(open_to_all=True)
    site.node.frontend.auto_approve = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.login(required=True).enter)
        await anyio.sleep(5 * HOUR_S)
        assert not site.bus.connected
        assert site.registrations_s[:6] == [0, 2, 6, 14, 30, 60]
        site.node.frontend.approve(site.node.row.id)
    assert anyio.current_time() - 5 * HOUR_S <= 30
    assert site.bus.connected
    assert site.bus.credentials == site.minted[-1]
    assert site.connected_when_registered == [False]


async def test_a_frontend_that_cannot_mint_ends_a_worker_that_must_have_credentials() -> None:
    """S-W07: with the reason and the remedy, and never without a login."""
    site = Site(open_to_all=True, mints=False)
    with pytest.raises(NotRegistered, match="set LOCALAI_NATS_ACCOUNT_SEED there, or a login here") as caught:
        await site.login(required=True).enter()
    assert caught.value.attempts == 10
    assert not site.bus.connected


async def test_the_operators_own_pair_is_used_and_never_renewed() -> None:
    """S-W07: what the frontend mints besides is left alone."""
    site = Site()
    fixed = site.users.mint("fixed")
    site.minted.append(fixed)
    await site.keep(site.login(fixed, required=True), for_s=10 * DAY_S)
    assert site.bus.credentials == fixed
    assert site.registrations_s == [0]
    assert site.connected_when_registered == [True]


@pytest.mark.parametrize("pair", [("jwt", ""), ("", "SUA"), ("a.b.c", "x")])
async def test_unusable_credentials_of_the_frontend_are_told_and_not_used(
    pair: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """S-W07: half a pair is none."""
    site = Site(open_to_all=True)
    site.node.frontend.credentials = lambda _: pair
    await site.login().enter()
    assert site.bus.connected
    assert site.bus.credentials is None
    assert "credentials are unusable, going on without: the NATS user JWT must be" in caplog.text


async def test_half_a_pair_does_not_do_where_credentials_are_required() -> None:
    """S-W07: the next registration may bring a whole one."""
    site = Site(open_to_all=True)
    site.node.frontend.credentials = lambda _: ("jwt", "")

    async def mend() -> None:
        await anyio.sleep(10)
        site.node.frontend.credentials = site.mint

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(mend)
        await site.login(required=True).enter()
    assert site.registrations_s == [0, 2, 6, 14]
    assert site.bus.credentials == site.minted[0]


async def test_a_login_that_is_refused_is_replaced_by_one_of_the_frontend() -> None:
    """N-B28: it stands in the address, or the frontend minted it with another account."""
    site = Site()
    await site.bus.login(NatsUsers().mint("stranger"))
    await site.login().enter()
    assert site.bus.credentials == site.minted[0]
    assert site.bus.connected


async def test_a_node_that_goes_on_as_it_was_logs_in_with_what_it_had() -> None:
    """A restarted worker does not register where it need not."""
    site = Site()
    await site.enrolment.register()
    await site.login(required=True).enter()
    assert site.registrations_s == [0]
    assert site.bus.credentials == site.minted[0]


async def test_credentials_of_the_last_life_that_are_refused_are_replaced() -> None:
    site = Site()
    await site.enrolment.register()
    site.refused.add(site.minted[0])
    await site.login(required=True).enter()
    assert len(site.registrations_s) == 2
    assert site.bus.connected


@pytest.mark.parametrize("answers", [True, False])
async def test_a_second_worker_of_one_name_is_told_of_the_first(
    answers: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """H-24, S-K04: upstream's two overwrite each other's addresses and both obey, without a word."""
    site = Site(open_to_all=True, mints=False)
    first = InMemoryMessageBus(site.broker)
    await first.open()
    node_id = await site.enrolment.register()
    subscription = await first.subscribe(f"nodes.{node_id}.models.running")

    async def answer() -> None:
        async for message in subscription:
            if answers:
                await first.publish(message.reply_to, b'{"models":[]}')

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        assert await site.login().enter() == node_id
        tasks.cancel_scope.cancel()
    said = f"another worker answers as node {node_id}: both are called gpu-1"
    assert (said in caplog.text) is answers


async def test_a_worker_alone_is_told_of_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """H-24"""
    await Site(open_to_all=True, mints=False).login().enter()
    assert "another worker" not in caplog.text
    assert anyio.current_time() == 0


# Renewing.


async def test_credentials_are_renewed_at_no_cost_while_the_frontend_has_no_rows() -> None:
    """N-B4, S-K16, H-19: upstream renews at three quarters of the lifetime whatever runs."""
    site = Site()
    await site.keep(site.login(), for_s=2 * DAY_S)
    assert site.registrations_s == pytest.approx([0, 18 * HOUR_S, 36 * HOUR_S], abs=31)
    assert site.bus.credentials == site.minted[-1]


async def test_rows_without_requests_are_kept_for_half_the_time_that_is_left() -> None:
    """N-B4, H-19: dropping them costs the next request a look at what runs."""
    site = Site()
    await site.enrolment.register()
    site.node.frontend.put_model(site.node.row.id, BUSY)
    site.node.frontend.add_in_flight(site.node.row.id, BUSY.model_name, -1)
    await site.keep(site.login(), for_s=23 * HOUR_S)
    assert site.registrations_s == pytest.approx([0, 21 * HOUR_S], abs=400)


@pytest.mark.parametrize("seen_by", ["frontend", "node"])
async def test_requests_in_flight_put_a_renewal_off_until_it_must_be(seen_by: str) -> None:
    """N-B4, S-K16: ten minutes are left for tries, whoever sees the requests."""
    site = Site()
    await site.enrolment.register()
    if seen_by == "frontend":
        site.node.frontend.put_model(site.node.row.id, BUSY)
    else:
        site.node.clients = 1
    await site.keep(site.login(), for_s=DAY_S)
    assert site.registrations_s == pytest.approx([0, DAY_S - 600], abs=31)
    assert site.bus.connected


async def test_a_frontend_that_does_not_tell_its_rows_is_not_taken_for_one_without() -> None:
    site = Site()
    site.node.frontend.api_auth = True
    await site.enrolment.register()
    site.node.frontend.generation = "seed"
    await site.keep(site.login(), for_s=DAY_S - 700)
    assert site.registrations_s == [0]


async def test_short_credentials_are_renewed_in_time() -> None:
    site = Site(lifetime_s=60)
    seen: list[bool] = []

    async def watch() -> None:
        while True:
            await anyio.sleep(0.25)
            seen.append(site.bus.connected)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await site.keep(site.login(), for_s=600)
        tasks.cancel_scope.cancel()
    assert all(seen)
    assert len(site.registrations_s) == pytest.approx(600 / 46, abs=2)


async def test_credentials_without_an_end_are_kept() -> None:
    """N-B4: nothing is dropped for nothing."""
    site = Site(lifetime_s=None)
    await site.keep(site.login(), for_s=30 * DAY_S)
    assert site.registrations_s == [0]


async def test_a_renewal_is_tried_for_as_long_as_it_takes(caplog: pytest.LogCaptureFixture) -> None:
    """N-B4: upstream ends the worker after a hundred failures, with all that runs on it."""
    site = Site()
    login = site.login()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.keep, login, 3 * DAY_S)
        await anyio.sleep(17 * HOUR_S)
        site.node.frontend.offline = True
        await anyio.sleep(10 * HOUR_S)
        seen = [(site.bus.connected, login.worries)]
        site.node.frontend.offline = False
        await anyio.sleep(31)
        seen.append((site.bus.connected, login.worries))
        tasks.cancel_scope.cancel()
    assert seen == [(False, ("the NATS server refuses the login",)), (True, ())]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert 1 <= len(errors) < 100


async def test_credentials_that_the_server_takes_no_longer_are_renewed() -> None:
    """N-B28: the account's keys were changed, or the JWT was revoked."""
    site = Site()
    login = site.login()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.keep, login, DAY_S)
        await anyio.sleep(100)
        site.refused.add(site.minted[0])
        seen = [site.bus.connected]
        await anyio.sleep(31)
        seen.append(site.bus.connected)
        tasks.cancel_scope.cancel()
    assert seen == [False, True]
    assert len(site.registrations_s) == 2


async def test_a_renewal_tells_the_readings_of_the_moment_and_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """N-B4, H-19: upstream sends the body of the start again."""
    caplog.set_level(logging.DEBUG)
    site = Site()
    login = site.login()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.keep, login, 20 * HOUR_S)
        await anyio.sleep(HOUR_S)
        before = site.node.sent("register")["available_ram"]
        site.node.hardware.reading = Hardware(ram=Memory(64 * GIB, 7))
    assert (before, site.node.sent("register")["available_ram"]) == (48 * GIB, 7)
    for credentials in site.minted:
        assert credentials.jwt not in caplog.text
        assert credentials.seed not in caplog.text
    assert TOKEN not in caplog.text


async def test_two_who_want_a_registration_at_once_get_one() -> None:
    """Each drops the frontend's rows."""
    site = Site()
    await site.enrolment.register()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.enrolment.register_again)
        tasks.start_soon(site.enrolment.register_again)
    assert len(site.registrations_s) == 2
