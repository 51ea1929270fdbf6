"""The promises of the `FrontendClient` port, held in memory and over a real HTTP server alike."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import anyio
import httpx
import pytest

from localai_worker.adapters.frontend.client import HttpFrontendClient
from localai_worker.adapters.memory.frontend import InMemoryFrontend
from localai_worker.adapters.memory.frontend_client import InMemoryFrontendClient
from localai_worker.adapters.memory.frontend_nodes import NodeStatus
from localai_worker.app.simulator.frontend_http import frontend_app
from localai_worker.domain.errors import FrontendRefused, FrontendUnavailable, NodeForgotten, WorkerError
from localai_worker.domain.messages.node_status import LoadedModel
from localai_worker.domain.messages.registration import Heartbeat, RegisterRequest
from localai_worker.domain.node import NodeId
from localai_worker.domain.ports.frontend import FrontendClient
from tests.golden_http import Exchange, golden_http
from tests.serving import serving

TOKEN = "s3cret"
NODE = RegisterRequest(name="gpu-1", address="gpu-1:50051", http_address="gpu-1:50050", token=TOKEN)
NOBODY = NodeId("deadbeef-0000-4000-8000-000000000000")
QWEN = LoadedModel(id="5d9d6f0e", model_name="qwen3-0.6b", address="gpu-1:50051", state="loaded", in_flight=2)


@dataclass
class Stage:
    """A frontend with a token, and clients to it by token and time limit."""

    frontend: InMemoryFrontend
    connect: Callable[[str, float], FrontendClient]
    client: FrontendClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.connect(TOKEN, 10.0)

    async def registered(self) -> NodeId:
        return NodeId((await self.client.register(NODE)).id)


@pytest.fixture(params=["memory", "http"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    frontend = InMemoryFrontend(token=TOKEN)
    if request.param == "memory":
        yield Stage(
            frontend, lambda token, timeout_s: InMemoryFrontendClient(frontend, token, timeout_s=timeout_s)
        )
        return
    clients: list[HttpFrontendClient] = []
    async with serving(frontend_app(frontend)) as address:

        def connect(token: str, timeout_s: float) -> HttpFrontendClient:
            clients.append(HttpFrontendClient(f"http://{address}/", token, timeout_s=timeout_s))
            return clients[-1]

        yield Stage(frontend, connect)
        for client in clients:
            await client.close()


async def test_registering_gives_an_id_that_a_second_registration_keeps(stage: Stage) -> None:
    first = await stage.client.register(NODE)
    second = await stage.client.register(NODE)
    assert (first.id, first.name, first.status) == (second.id, "gpu-1", "healthy")
    assert second.created_at.startswith("0001-01-01")
    assert list(stage.frontend.nodes) == [first.id]


async def test_every_field_of_a_registration_arrives(stage: Stage) -> None:
    await stage.client.register(
        RegisterRequest(
            name="gpu-1",
            address="gpu-1:50051",
            http_address="gpu-1:50050",
            token=TOKEN,
            total_vram=2**40,
            available_vram=2**39,
            gpu_vendor="nvidia",
            total_ram=7,
            available_ram=6,
            total_disk=5,
            available_disk=0,
            gpu_compute_capability="9.0",
            capability="nvidia-cuda-12",
            max_replicas_per_model=3,
            labels={"tier": "schnell"},
        )
    )
    row = stage.frontend.named("gpu-1")
    assert row is not None
    assert (row.total_vram, row.available_vram, row.gpu_vendor) == (2**40, 2**39, "nvidia")
    assert (row.total_ram, row.available_ram, row.total_disk, row.available_disk) == (7, 6, 5, 0)
    assert (row.gpu_compute_capability, row.capability) == ("9.0", "nvidia-cuda-12")
    assert row.max_replicas_per_model == 3
    assert row.labels["tier"] == "schnell"


async def test_a_node_may_have_to_wait_for_approval(stage: Stage) -> None:
    stage.frontend.auto_approve = False
    assert (await stage.client.register(NODE)).status == "pending"


async def test_credentials_for_the_bus_arrive_with_the_registration(stage: Stage) -> None:
    stage.frontend.credentials = lambda node_id: (f"jwt of {node_id}", "SU-seed")
    reply = await stage.client.register(NODE)
    assert (reply.nats_jwt, reply.nats_user_seed) == (f"jwt of {reply.id}", "SU-seed")


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        ("", TOKEN, "missing or invalid Authorization header"),
        ("nope", TOKEN, "invalid registration token"),
        (TOKEN, "", "registration token required"),
        (TOKEN, "nope", "invalid registration token"),
    ],
)
async def test_a_wrong_token_in_header_or_body_is_refused_with_the_frontends_words(
    stage: Stage, header: str, body: str, message: str
) -> None:
    request = RegisterRequest(name="gpu-1", address="a:1", http_address="a:2", token=body)
    with pytest.raises(FrontendRefused) as caught:
        await stage.connect(header, 10.0).register(request)
    assert (caught.value.status, caught.value.message) == (401, message)
    assert "LOCALAI_REGISTRATION_TOKEN" in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert not stage.frontend.nodes


async def test_a_token_outside_ascii_is_taken(stage: Stage) -> None:
    """H-28"""
    stage.frontend.token = "schlüssel"
    request = RegisterRequest(name="gpu-1", address="a:1", http_address="a:2", token="schlüssel")
    assert (await stage.connect("schlüssel", 10.0).register(request)).status == "healthy"


async def test_a_registration_the_frontend_cannot_take_is_refused_with_its_words(stage: Stage) -> None:
    with pytest.raises(FrontendRefused) as caught:
        await stage.client.register(
            RegisterRequest(name="x" * 256, address="a:1", http_address="", token=TOKEN)
        )
    assert (caught.value.status, caught.value.message) == (400, "name exceeds 255 characters")


async def test_a_heartbeat_moves_what_it_tells_and_leaves_the_rest(stage: Stage) -> None:
    node_id = await stage.registered()
    await stage.client.heartbeat(node_id, Heartbeat(available_vram=5, available_ram=6))
    await stage.client.heartbeat(node_id, Heartbeat(available_ram=0, total_disk=9, available_disk=0))
    row = stage.frontend.nodes[node_id]
    assert (row.available_vram, row.available_ram, row.total_disk, row.available_disk) == (5, 0, 9, 0)
    assert row.last_heartbeat > row.created_at


async def test_a_heartbeat_of_a_node_the_frontend_lost_says_so(stage: Stage) -> None:
    with pytest.raises(NodeForgotten) as caught:
        await stage.client.heartbeat(NOBODY, Heartbeat())
    assert caught.value.node_id == NOBODY


async def test_draining_and_deregistering_change_the_status(stage: Stage) -> None:
    node_id = await stage.registered()
    await stage.client.drain(node_id)
    assert stage.frontend.nodes[node_id].status is NodeStatus.DRAINING
    await stage.client.deregister(node_id)
    assert stage.frontend.nodes[node_id].status is NodeStatus.OFFLINE


async def test_the_rows_of_loaded_models_come_whole(stage: Stage) -> None:
    node_id = await stage.registered()
    assert await stage.client.loaded_models(node_id) == ()
    stage.frontend.put_model(node_id, QWEN)
    assert await stage.client.loaded_models(node_id) == (QWEN,)


async def test_an_unknown_node_has_no_rows_and_cannot_be_drained(stage: Stage) -> None:
    assert await stage.client.loaded_models(NOBODY) == ()
    with pytest.raises(FrontendUnavailable, match="failed to drain node"):
        await stage.client.drain(NOBODY)
    with pytest.raises(FrontendUnavailable, match="failed to deactivate node"):
        await stage.client.deregister(NOBODY)


async def _every_call(client: FrontendClient, expected: type[WorkerError]) -> list[WorkerError]:
    """The errors of one call of each kind."""
    errors: list[WorkerError] = []
    for call in (
        lambda: client.register(NODE),
        lambda: client.heartbeat(NOBODY, Heartbeat()),
        lambda: client.drain(NOBODY),
        lambda: client.loaded_models(NOBODY),
        lambda: client.deregister(NOBODY),
    ):
        with pytest.raises(expected) as caught:
            await call()
        errors.append(caught.value)
    return errors


async def test_a_server_error_counts_as_unavailable_on_every_call(stage: Stage) -> None:
    stage.frontend.answer_next(500, times=5)
    for error in await _every_call(stage.client, FrontendUnavailable):
        assert "500" in str(error)


async def test_any_other_client_error_counts_as_refused_on_every_call(stage: Stage) -> None:
    stage.frontend.answer_next(403, times=5)
    for error in await _every_call(stage.client, FrontendRefused):
        assert "answered 403: set by answer_next" in str(error)


async def test_a_redirect_is_an_error_on_every_call_and_never_followed(stage: Stage) -> None:
    """H-31, H-12d1f3a69"""
    stage.frontend.answer_next(307, times=5)
    for error in await _every_call(stage.client, FrontendUnavailable):
        assert "never followed" in str(error)
    assert [call.status for call in stage.frontend.calls] == [307] * 5


async def test_an_answer_that_is_not_the_protocols_counts_as_unavailable(stage: Stage) -> None:
    node_id = await stage.registered()
    stage.frontend.answer_next(200, times=2)
    with pytest.raises(FrontendUnavailable):
        await stage.client.register(NODE)
    with pytest.raises(FrontendUnavailable):
        await stage.client.loaded_models(node_id)


async def test_only_200_means_drained_or_deregistered(stage: Stage) -> None:
    node_id = await stage.registered()
    stage.frontend.answer_next(204, times=2)
    with pytest.raises(FrontendUnavailable, match="204"):
        await stage.client.drain(node_id)
    with pytest.raises(FrontendUnavailable, match="204"):
        await stage.client.deregister(node_id)
    assert stage.frontend.nodes[node_id].status is NodeStatus.HEALTHY


async def test_a_refused_list_of_models_does_not_read_as_nothing_in_flight(stage: Stage) -> None:
    """H-30: a seed frontend with user authentication refuses the registration token here."""
    stage.frontend.generation, stage.frontend.api_auth = "seed", True
    node_id = await stage.registered()
    with pytest.raises(FrontendRefused) as caught:
        await stage.client.loaded_models(node_id)
    assert caught.value.status == 401


async def test_a_frontend_that_is_away_counts_as_unavailable_on_every_call(stage: Stage) -> None:
    stage.frontend.offline = True
    await _every_call(stage.client, FrontendUnavailable)


async def test_a_frontend_that_does_not_answer_in_time_counts_as_unavailable(stage: Stage) -> None:
    stage.frontend.slow_s = 60
    with anyio.fail_after(5), pytest.raises(FrontendUnavailable, match=r"no answer within 0\.05 s"):
        await stage.connect(TOKEN, 0.05).register(NODE)
    assert not stage.frontend.nodes


async def test_closing_twice_is_fine(stage: Stage) -> None:
    await stage.registered()
    await stage.client.close()
    await stage.client.close()


def _id_of(exchange: Exchange) -> NodeId:
    return NodeId(exchange.path.split("/")[3])


def _frontend_for(exchange: Exchange, *, row_id: str) -> InMemoryFrontend:
    frontend = InMemoryFrontend(token=TOKEN, ids=lambda name, earlier: NodeId(row_id))
    if exchange.path.endswith("/register"):
        frontend.auto_approve = exchange.answer.get("status") != "pending"
        frontend.credentials = lambda node_id: (
            exchange.answer.get("nats_jwt", ""),
            exchange.answer.get("nats_user_seed", ""),
        )
    return frontend


@pytest.mark.parametrize(
    "name",
    [
        "seed-01-register-gpu",
        "seed-02-register-cpu-labels-pending",
        "seed-03-register-wrong-bearer",
        "seed-04-heartbeat",
        "seed-05-heartbeat-unknown-node",
        "seed-06-drain",
        "seed-07-drain-poll-models",
        "newer-15-register-nats-credentials",
    ],
)
async def test_the_simulated_frontend_answers_recorded_requests_as_recorded(name: str) -> None:
    exchange = golden_http(name)
    registers = exchange.path.endswith("/register")
    row_id = str(exchange.answer.get("id", "")) if registers else _id_of(exchange)
    frontend = _frontend_for(exchange, row_id=row_id)
    if not registers and exchange.status == 200:
        await frontend.register(NODE.to_wire(), f"Bearer {TOKEN}")
    if exchange.path.endswith("/models"):
        for row in exchange.answer:
            frontend.put_model(row_id, LoadedModel(**row))
    async with (
        serving(frontend_app(frontend)) as address,
        httpx.AsyncClient(trust_env=False, verify=False) as client,
    ):
        response = await client.request(
            exchange.method,
            f"http://{address}{exchange.path}",
            headers=exchange.headers,
            content=exchange.content or None,
        )
    assert response.status_code == exchange.status
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    if registers and exchange.status == 201:
        assert answer.pop("created_at")
        exchange.answer.pop("created_at")
    assert answer == exchange.answer
