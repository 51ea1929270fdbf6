"""When a restarted worker goes on as the node it was, in virtual time, and every reason not to."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.adapters.memory.frontend import InMemoryFrontend
from localai_worker.adapters.memory.frontend_client import InMemoryFrontendClient
from localai_worker.adapters.memory.hardware import InMemoryHardware
from localai_worker.adapters.memory.loop_clock import LoopClock
from localai_worker.app.simulator.nats_users import NatsUsers
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.backend import ReplicaKey
from localai_worker.domain.enrol import Enrolment
from localai_worker.domain.messages.node_status import LoadedModel
from localai_worker.domain.node import NodeId
from localai_worker.domain.node_identity import IdentityStore
from localai_worker.domain.node_report import NodeProfile
from localai_worker.domain.ports.hardware import Gpu, Hardware, Memory
from localai_worker.domain.process_table import RunningReplica
from localai_worker.domain.resume import ResumeNode

URL = "http://frontend:8080"
REPLICAS = (
    RunningReplica(ReplicaKey("qwen", 0), "llama-cpp", 50052, 1000),
    RunningReplica(ReplicaKey("qwen", 1), "llama-cpp", 50053, 1001),
)
ROW = LoadedModel(model_name="qwen", replica_index=0, address="gpu-1:50052", state="loaded", in_flight=3)


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@dataclass
class Node:
    """A node that has registered once; `restart` makes the worker that comes next."""

    frontend: InMemoryFrontend = field(default_factory=InMemoryFrontend)
    hardware: InMemoryHardware = field(default_factory=lambda: InMemoryHardware(Hardware(ram=Memory(64, 48))))
    disk: InMemoryFileSystem = field(default_factory=InMemoryFileSystem)
    url: str = URL
    profile: dict[str, Any] = field(default_factory=dict)

    def restart(self) -> ResumeNode:
        identities = IdentityStore(self.disk, Path("/state/identity.json"))
        client = InMemoryFrontendClient(self.frontend, "")
        profile = {"name": "gpu-1", "address": "gpu-1:50051", "http_address": "gpu-1:50050", "token": ""}
        enrolment = Enrolment(
            frontend=client,
            hardware=self.hardware,
            filesystem=InMemoryFileSystem(),
            profile=NodeProfile(**{**profile, **self.profile}),
            capability=lambda _hardware: "default",
            busy=_not_busy,
            identities=identities,
            frontend_url=self.url,
        )
        return ResumeNode(enrolment, identities, client, LoopClock())

    @property
    def calls(self) -> list[str]:
        return [call.endpoint for call in self.frontend.calls]

    async def live_once(self) -> NodeId:
        """A first worker registers and is killed; what is loaded then is known."""
        node_id = await self.restart().enrolment.register()
        self.frontend.put_model(node_id, ROW)
        self.frontend.calls.clear()
        return node_id


async def _not_busy() -> bool:
    return False


async def test_a_restarted_worker_goes_on_as_the_node_it_was(caplog: pytest.LogCaptureFixture) -> None:
    """S-K14: the frontend's rows and the requests in flight never notice the restart."""
    node = Node()
    node_id = await node.live_once()
    again = node.restart()
    with caplog.at_level(logging.INFO):
        assert await again.resume(REPLICAS) == node_id
    assert again.enrolment.node_id == node_id
    assert node.calls == ["heartbeat", "models"]
    assert node.frontend.row(node_id).models[("qwen", 0)].in_flight == 3
    assert f"resumed: node={node_id} replicas=2" in caplog.text


async def test_a_first_start_registers_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert await Node().restart().resume(REPLICAS) is None
    assert caplog.text == ""


async def test_nothing_loaded_agrees_with_anything() -> None:
    node = Node()
    node_id = await node.live_once()
    node.frontend.row(node_id).models.clear()
    assert await node.restart().resume(()) == node_id
    assert await node.restart().resume(REPLICAS) == node_id


@pytest.mark.parametrize(
    "row",
    [
        replace(ROW, replica_index=None),
        replace(ROW, address="127.0.0.1:50052"),
        replace(ROW, replica_index=1, address="gpu-1:50053"),
        replace(ROW, model_name="other", address="", state="loading"),
    ],
)
async def test_rows_that_agree(row: LoadedModel) -> None:
    """A seed frontend sends no replica index; a load without an address yet names no process."""
    node = Node()
    node_id = await node.live_once()
    node.frontend.row(node_id).models.clear()
    node.frontend.put_model(node_id, row)
    assert await node.restart().resume(REPLICAS) == node_id


@pytest.mark.parametrize(
    "row",
    [
        replace(ROW, model_name="other"),
        replace(ROW, replica_index=2),
        replace(ROW, address="gpu-1:50099"),
        replace(ROW, address="gpu-1:5005"),
        replace(ROW, address="gpu-1:150052"),
        replace(ROW, address=""),
        replace(ROW, model_name="other", state="loading"),
    ],
)
async def test_a_row_that_is_not_true_any_more_is_dropped_by_registering(
    row: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node()
    node_id = await node.live_once()
    node.frontend.put_model(node_id, row)
    with caplog.at_level(logging.INFO):
        assert await node.restart().resume(REPLICAS) is None
    assert f"not resuming node {node_id}, registering: the frontend's row of {row.model_name}" in caplog.text


def _other_address(node: Node) -> None:
    node.profile["address"] = "gpu-1:60051"


def _other_labels(node: Node) -> None:
    node.profile["labels"] = {"zone": "b"}


def _more_replicas(node: Node) -> None:
    node.profile["max_replicas_per_model"] = 2


def _budget(node: Node) -> None:
    node.profile["vram_budget"] = "80%"


def _a_gpu(node: Node) -> None:
    gpu = Gpu(vendor="nvidia", name="H100", total_bytes=80, free_bytes=60, compute_capability="9.0")
    node.hardware = InMemoryHardware(Hardware(ram=Memory(64, 48), gpus=(gpu,)))


def _other_frontend(node: Node) -> None:
    node.url = "http://another:8080"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_other_address, "another address"),
        (_other_labels, "another labels"),
        (_more_replicas, "another labels, max_replicas_per_model"),
        (_budget, "another vram_budget"),
        (_a_gpu, "another"),
        (_other_frontend, f"it was registered at {URL}"),
    ],
)
async def test_whatever_it_registered_with_must_be_as_it_was(
    change: Callable[[Node], None], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node()
    await node.live_once()
    change(node)
    with caplog.at_level(logging.INFO):
        assert await node.restart().resume(REPLICAS) is None
    assert told in caplog.text
    assert node.calls == [], "the frontend need not be asked"


async def test_readings_that_come_with_every_heartbeat_may_change() -> None:
    node = Node()
    node_id = await node.live_once()
    node.hardware = InMemoryHardware(Hardware(ram=Memory(64, 3)))
    assert await node.restart().resume(REPLICAS) == node_id


async def test_a_node_that_has_left_registers() -> None:
    node = Node()
    first = node.restart()
    await first.enrolment.register()
    await first.enrolment.drain()
    assert await node.restart().resume(()) is None


async def test_a_node_that_waits_for_approval_registers() -> None:
    """H-17: nothing is loaded on it, and the answer tells whether it was approved meanwhile."""
    node = Node()
    node.frontend.auto_approve = False
    await node.restart().enrolment.register()
    assert await node.restart().resume(()) is None


async def test_a_frontend_that_forgot_the_node_is_registered_at(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    node_id = await node.live_once()
    node.frontend.admin_delete(node_id)
    with caplog.at_level(logging.INFO):
        assert await node.restart().resume(REPLICAS) is None
    assert "does not know node" in caplog.text


async def test_a_frontend_that_refuses_the_token_is_registered_at() -> None:
    node = Node()
    await node.live_once()
    node.frontend.token = "changed"
    assert await node.restart().resume(REPLICAS) is None


async def test_rows_that_a_frontend_does_not_show_cannot_agree() -> None:
    """A seed frontend with user authentication refuses the registration token there."""
    node = Node(InMemoryFrontend(generation="seed", api_auth=True))
    await node.live_once()
    assert await node.restart().resume(REPLICAS) is None
    assert node.calls == ["heartbeat", "models"]


async def test_a_frontend_that_is_away_for_a_moment_is_asked_again() -> None:
    node = Node()
    node_id = await node.live_once()
    node.frontend.offline = True
    found: list[NodeId | None] = []

    async def resume() -> None:
        found.append(await node.restart().resume(REPLICAS))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resume)
        await anyio.sleep(3)
        node.frontend.offline = False
    assert found == [node_id]


async def test_a_frontend_that_stays_away_is_left_to_the_registration() -> None:
    node = Node()
    await node.live_once()
    node.frontend.offline = True
    assert await node.restart().resume(REPLICAS) is None
    assert node.calls == ["heartbeat"] * 3


@pytest.mark.parametrize(("left_s", "resumes"), [(3600, True), (30, False), (-1, False)])
async def test_credentials_must_be_good_for_a_while(left_s: int, resumes: bool) -> None:
    """Registering is what renews them."""
    users = NatsUsers(lambda: LoopClock().now().timestamp())
    mint = partial(users.mint_worker, lifetime_s=left_s)
    node = Node(InMemoryFrontend(credentials=mint))
    node_id = await node.live_once()
    again = node.restart()
    assert await again.resume(REPLICAS) == (node_id if resumes else None)
    if resumes:
        assert again.enrolment.registered is not None
        assert again.enrolment.registered.nats_user_seed.startswith("SU")


async def test_a_node_that_must_log_in_does_not_go_on_without_credentials(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """S-W07: the identity is of a time when NATS let anybody in."""
    node = Node()
    await node.live_once()
    with caplog.at_level(logging.INFO):
        assert await replace(node.restart(), needs_credentials=True).resume(REPLICAS) is None
    assert "it has no NATS credentials" in caplog.text


async def test_an_approval_that_rows_told_is_remembered() -> None:
    """Registering once more would drop those very rows."""
    node = Node()
    node.frontend.auto_approve = False
    first = node.restart().enrolment
    node_id = await first.register()
    node.frontend.approve(node_id)
    node.frontend.put_model(node_id, ROW)
    assert not await first.ask_for_approval()
    assert await node.restart().resume(REPLICAS) == node_id
