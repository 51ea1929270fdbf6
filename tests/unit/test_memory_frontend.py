"""The in-memory frontend keeps the rules a real one has about nodes."""

import json
from datetime import timedelta

import anyio
import pytest

from localai_worker.adapters.memory.frontend import InMemoryFrontend
from localai_worker.adapters.memory.frontend_nodes import Generation, NodeRow, NodeStatus
from localai_worker.adapters.memory.frontend_registry import NodeCallRefused
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.errors import FrontendUnavailable
from localai_worker.domain.messages.node_status import LoadedModel
from localai_worker.domain.node import NodeId

MIB = 2**20
GIB = 2**30
QWEN = LoadedModel(model_name="qwen", address="gpu-1:50051", state="loaded", in_flight=1)


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@pytest.fixture(params=["seed", "newer"])
def frontend(request: pytest.FixtureRequest) -> InMemoryFrontend:
    generation: Generation = request.param
    return InMemoryFrontend(generation=generation)


async def register(frontend: InMemoryFrontend, **fields: object) -> NodeRow:
    """Register a node with the least it must say and `fields`."""
    body = {"name": "gpu-1", "address": "gpu-1:50051", "http_address": "gpu-1:50050", **fields}
    reply = await frontend.register(json.dumps(body).encode(), f"Bearer {frontend.token}")
    return frontend.nodes[NodeId(reply.id)]


async def beat(frontend: InMemoryFrontend, row: NodeRow, body: bytes = b"{}") -> None:
    await frontend.heartbeat(row.id, body, "")


async def refusal(frontend: InMemoryFrontend, **fields: object) -> NodeCallRefused:
    with pytest.raises(NodeCallRefused) as caught:
        await register(frontend, **fields)
    return caught.value


async def silence(frontend: InMemoryFrontend, seconds: float) -> None:
    """Let time pass, then the monitor."""
    await anyio.sleep(seconds)
    frontend.monitor(frontend.clock.now())


# Registration.


async def test_the_name_is_the_identity_of_a_node(frontend: InMemoryFrontend) -> None:
    """H-24"""
    first = await register(frontend, address="a:1")
    second = await register(frontend, address="b:1")
    other = await register(frontend, name="gpu-2")
    assert first is second
    assert first.address == "b:1"
    assert other.id != first.id


async def test_ids_are_the_same_in_every_run() -> None:
    ids = {(await register(InMemoryFrontend())).id for _ in range(3)}
    assert len(ids) == 1


async def test_a_deleted_node_comes_back_under_another_id(frontend: InMemoryFrontend) -> None:
    row = await register(frontend)
    frontend.admin_delete(row.id)
    with pytest.raises(NodeCallRefused, match="404 node not found"):
        await beat(frontend, row)
    assert (await register(frontend)).id != row.id


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"name": ""}, 400, "name is required"),
        ({"address": ""}, 400, "address is required for backend workers"),
        ({"node_type": "toaster"}, 400, 'invalid node_type "toaster"; must be "backend" or "agent"'),
        ({"name": "n" * 256}, 400, "name exceeds 255 characters"),
        ({"name": "ü" * 128}, 400, "name exceeds 255 characters"),
        ({"address": "a" * 513}, 400, "address exceeds 512 characters"),
        ({"http_address": "a" * 513}, 400, "http_address exceeds 512 characters"),
        ({"total_vram": 1.5e10}, 400, "invalid request body"),
        ({"total_vram": 12.0}, 400, "invalid request body"),
        ({"total_vram": -1}, 400, "invalid request body"),
        ({"total_vram": "1"}, 400, "invalid request body"),
        ({"labels": {"tier": 1}}, 400, "invalid request body"),
    ],
)
async def test_a_wrong_registration_is_refused_with_the_frontends_words(
    frontend: InMemoryFrontend, fields: dict[str, object], status: int, message: str
) -> None:
    refused = await refusal(frontend, **fields)
    assert (refused.status, refused.message) == (status, message)
    assert not frontend.nodes


async def test_an_agent_needs_no_address(frontend: InMemoryFrontend) -> None:
    assert (await register(frontend, node_type="agent", address="")).node_type == "agent"


async def test_zero_values_do_not_overwrite_what_is_known(frontend: InMemoryFrontend) -> None:
    await register(frontend, total_vram=8 * GIB, gpu_vendor="nvidia", total_ram=4, available_ram=3)
    row = await register(frontend, total_vram=0, gpu_vendor="", http_address="")
    assert (row.total_vram, row.gpu_vendor, row.http_address) == (8 * GIB, "nvidia", "gpu-1:50050")
    assert (row.total_ram, row.available_ram) == (4, 3)


async def test_a_newer_frontend_resets_the_disk_of_a_worker_that_stops_reporting_it() -> None:
    frontend = InMemoryFrontend()
    await register(frontend, total_disk=100, available_disk=50)
    row = await register(frontend)
    assert (row.total_disk, row.available_disk) == (0, 0)


async def test_a_seed_frontend_knows_neither_disk_nor_replica_slots() -> None:
    frontend = InMemoryFrontend(generation="seed")
    row = await register(frontend, total_disk=100, max_replicas_per_model=4, capability="x")
    assert (row.total_disk, row.max_replicas_per_model, row.capability) == (0, 1, "")


@pytest.mark.parametrize(("given", "taken"), [(4, 4), (0, 1), (-3, 1)])
async def test_a_node_has_at_least_one_replica_slot(given: int, taken: int) -> None:
    row = await register(InMemoryFrontend(), max_replicas_per_model=given)
    assert row.max_replicas_per_model == taken
    assert row.labels["node.replica-slots"] == str(taken)


async def test_the_vram_budget_caps_what_is_available() -> None:
    frontend = InMemoryFrontend()
    row = await register(frontend, total_vram=100 * GIB, available_vram=90 * GIB, vram_budget="80%")
    assert (row.total_vram, row.available_vram) == (100 * GIB, 80 * GIB)
    await beat(frontend, row, b'{"available_vram": %d}' % (70 * GIB))
    assert row.available_vram == 70 * GIB
    await beat(frontend, row, b'{"available_vram": %d}' % (95 * GIB))
    assert row.available_vram == 80 * GIB


async def test_an_unreadable_budget_caps_nothing() -> None:
    row = await register(InMemoryFrontend(), total_vram=GIB, available_vram=GIB, vram_budget="lots")
    assert row.available_vram == GIB


async def test_registering_again_forgets_what_was_loaded(frontend: InMemoryFrontend) -> None:
    row = await register(frontend)
    frontend.put_model(row.id, QWEN)
    await register(frontend)
    assert not row.models


# Labels.


async def test_a_seed_frontend_replaces_the_labels_a_newer_one_merges_them() -> None:
    """The label `hand` stands for one an administrator added."""
    for generation, kept in (("seed", False), ("newer", True)):
        frontend = InMemoryFrontend(generation="seed" if generation == "seed" else "newer")
        row = await register(frontend, labels={"tier": "slow"})
        row.labels["hand"] = "made"
        await register(frontend, labels={"tier": "fast"})
        assert row.labels["tier"] == "fast"
        assert ("hand" in row.labels) is kept


async def test_a_registration_without_labels_changes_none(frontend: InMemoryFrontend) -> None:
    row = await register(frontend, labels={"tier": "slow"})
    await register(frontend)
    assert row.labels["tier"] == "slow"


@pytest.mark.parametrize("long", [{"k" * 129: "v"}, {"k": "v" * 256}])
async def test_one_label_too_long_spoils_the_set_for_a_seed_frontend_only(long: dict[str, str]) -> None:
    for generation, taken in (("seed", False), ("newer", True)):
        frontend = InMemoryFrontend(generation="seed" if generation == "seed" else "newer")
        row = await register(frontend, labels={"tier": "slow"})
        await register(frontend, labels={"new": "one", **long})
        assert row.labels["tier"] == "slow"
        assert ("new" in row.labels) is taken
        assert not long.keys() & row.labels.keys()


@pytest.mark.parametrize(
    ("vram", "bucket"),
    [
        (80 * GIB, "80GB+"),
        (80 * GIB - 1, "48GB"),
        (48 * GIB, "48GB"),
        (24 * GIB, "24GB"),
        (16 * GIB, "16GB"),
        (8 * GIB, "8GB"),
        (8 * GIB - 1, "7GB"),
        (512 * MIB, "0GB"),
    ],
)
async def test_the_frontend_labels_a_node_by_its_vram(
    frontend: InMemoryFrontend, vram: int, bucket: str
) -> None:
    row = await register(frontend, total_vram=vram, gpu_vendor="nvidia")
    assert row.labels["gpu.vram"] == bucket
    assert (row.labels["gpu.vendor"], row.labels["node.name"]) == ("nvidia", "gpu-1")


async def test_a_node_without_gpu_has_no_gpu_labels(frontend: InMemoryFrontend) -> None:
    row = await register(frontend, total_vram=0, gpu_vendor="")
    assert not {key for key in row.labels if key.startswith("gpu.")}


# Approval.


async def test_without_auto_approval_a_node_waits_through_registrations_until_approved(
    frontend: InMemoryFrontend,
) -> None:
    frontend.auto_approve = False
    row = await register(frontend)
    await register(frontend)
    await beat(frontend, row)
    assert row.status == "pending"
    frontend.approve(row.id)
    assert row.status == "healthy"
    await register(frontend)
    assert row.status == "healthy"


async def test_only_a_pending_node_can_be_approved(frontend: InMemoryFrontend) -> None:
    row = await register(frontend)
    with pytest.raises(NodeCallRefused, match="400 node is healthy, not pending"):
        frontend.approve(row.id)


async def test_a_pending_node_gets_no_credentials() -> None:
    frontend = InMemoryFrontend(auto_approve=False, credentials=lambda node_id: ("jwt", "seed"))
    body = b'{"name":"gpu-1","address":"a:1"}'
    assert not (await frontend.register(body, "")).nats_jwt
    frontend.auto_approve = True
    assert (await frontend.register(body, "")).nats_jwt == "jwt"
    frontend.generation = "seed"
    assert not (await frontend.register(body, "")).nats_jwt


async def test_draining_a_pending_node_erases_that_it_waits(frontend: InMemoryFrontend) -> None:
    """H-17: the weakness because of which a worker must not drain a pending node."""
    frontend.auto_approve = False
    row = await register(frontend)
    await frontend.drain(row.id, "")
    assert (await register(frontend)).status == "healthy"


async def test_a_pending_node_that_falls_silent_comes_back_approved(frontend: InMemoryFrontend) -> None:
    """S-K03"""
    frontend.auto_approve = False
    row = await register(frontend)
    await silence(frontend, 61)
    assert row.status == "offline"
    await beat(frontend, row)
    frontend.monitor(frontend.clock.now())
    assert row.status == "healthy"


# Heartbeats and the monitor.


@pytest.mark.parametrize("status", [NodeStatus.PENDING, NodeStatus.OFFLINE])
async def test_heartbeats_of_a_pending_or_offline_node_only_move_the_time(
    frontend: InMemoryFrontend, status: NodeStatus
) -> None:
    row = await register(frontend, available_vram=7)
    row.status = status
    await anyio.sleep(5)
    await beat(frontend, row, b'{"available_vram": 1}')
    assert (row.status, row.available_vram) == (status, 7)
    assert row.last_heartbeat == row.created_at + timedelta(seconds=5)


async def test_heartbeats_of_a_draining_node_are_stored_and_leave_it_draining(
    frontend: InMemoryFrontend,
) -> None:
    row = await register(frontend, total_vram=9)
    await frontend.drain(row.id, "")
    await beat(frontend, row, b'{"available_vram": 1}')
    assert (row.status, row.available_vram) == (NodeStatus.DRAINING, 1)


@pytest.mark.parametrize("number", [b"1.5e10", b"12.0", b"1e3", b"-1", b'"7"'])
async def test_a_wrongly_typed_number_in_a_heartbeat_is_stored_as_zero(
    frontend: InMemoryFrontend, number: bytes
) -> None:
    row = await register(frontend, total_vram=9, available_vram=7)
    await beat(frontend, row, b'{"available_vram": %s, "available_ram": 5}' % number)
    assert (row.available_vram, row.available_ram) == (0, 5)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"available_vram": null}'])
async def test_a_heartbeat_that_says_nothing_moves_the_time(frontend: InMemoryFrontend, body: bytes) -> None:
    row = await register(frontend, available_vram=7)
    await anyio.sleep(1)
    await beat(frontend, row, body)
    assert row.available_vram == 7
    assert row.last_heartbeat > row.created_at


async def test_a_node_silent_for_more_than_a_minute_goes_offline_and_loses_its_rows(
    frontend: InMemoryFrontend,
) -> None:
    """S-K14"""
    row = await register(frontend)
    frontend.put_model(row.id, QWEN)
    await silence(frontend, 60)
    assert row.status == "healthy"
    await silence(frontend, 1)
    assert row.status == "offline"
    assert not row.models
    await beat(frontend, row)
    frontend.monitor(frontend.clock.now())
    assert row.status == "healthy"
    assert not row.models


async def test_the_monitor_leaves_a_draining_node_alone(frontend: InMemoryFrontend) -> None:
    row = await register(frontend)
    await frontend.drain(row.id, "")
    await silence(frontend, 3600)
    assert row.status == "draining"
    await beat(frontend, row)
    frontend.monitor(frontend.clock.now())
    assert row.status == "draining"
    await frontend.resume(row.id, "")
    assert row.status == "healthy"


async def test_a_node_deregistered_a_moment_ago_is_taken_for_healthy_again(
    frontend: InMemoryFrontend,
) -> None:
    """H-16: the weakness because of which a worker drains once more after it deregistered."""
    row = await register(frontend)
    await frontend.deregister(row.id, "")
    assert row.status == "offline"
    await silence(frontend, 15)
    assert row.status == "healthy"
    await frontend.deregister(row.id, "")
    await frontend.drain(row.id, "")
    await silence(frontend, 15)
    assert row.status == "draining"


async def test_an_unhealthy_node_recovers_at_the_next_pass(frontend: InMemoryFrontend) -> None:
    row = await register(frontend)
    row.status = NodeStatus.UNHEALTHY
    frontend.monitor(frontend.clock.now())
    assert row.status == "healthy"


async def test_a_newer_monitor_leaves_a_node_alone_that_is_already_down() -> None:
    for generation, keeps in (("seed", False), ("newer", True)):
        frontend = InMemoryFrontend(generation="seed" if generation == "seed" else "newer")
        row = await register(frontend)
        frontend.put_model(row.id, QWEN)
        row.status = NodeStatus.UNHEALTHY
        await silence(frontend, 61)
        assert bool(row.models) is keeps


# Draining and leaving.


async def test_a_seed_drain_keeps_the_rows_a_newer_one_deletes_them() -> None:
    """S-K15"""
    for generation, kept in (("seed", True), ("newer", False)):
        frontend = InMemoryFrontend(generation="seed" if generation == "seed" else "newer")
        row = await register(frontend)
        frontend.put_model(row.id, QWEN)
        await frontend.drain(row.id, "")
        assert bool(await frontend.models(row.id, "")) is kept


@pytest.mark.parametrize("endpoint", ["deregister", "delete"])
async def test_a_node_that_leaves_keeps_its_row_without_models(
    frontend: InMemoryFrontend, endpoint: str
) -> None:
    row = await register(frontend)
    frontend.put_model(row.id, QWEN)
    await getattr(frontend, endpoint)(row.id, "")
    assert row.status == "offline"
    assert await frontend.models(row.id, "") == ()
    assert frontend.named("gpu-1") is row


async def test_requests_in_flight_are_never_fewer_than_none(frontend: InMemoryFrontend) -> None:
    row = await register(frontend)
    frontend.put_model(row.id, QWEN)
    frontend.add_in_flight(row.id, "qwen", +2)
    [model] = await frontend.models(row.id, "")
    assert model.in_flight == 3
    frontend.add_in_flight(row.id, "qwen", -5)
    [model] = await frontend.models(row.id, "")
    assert model.in_flight == 0
    frontend.add_in_flight(row.id, "another", +1)
    assert len(row.models) == 1


# Tokens.


async def test_without_a_token_everything_is_open(frontend: InMemoryFrontend) -> None:
    row = await register(frontend)
    await frontend.heartbeat(row.id, b"{}", "Basic whatever")
    assert frontend.calls[-1].status == 200


@pytest.mark.parametrize("authorization", ["", "Basic s3cret", "bearer s3cret", "Bearers3cret"])
async def test_a_header_that_is_no_bearer_token_is_told_apart_from_a_wrong_one(authorization: str) -> None:
    frontend = InMemoryFrontend(token="s3cret")
    with pytest.raises(NodeCallRefused) as caught:
        await frontend.drain("any", authorization)
    assert caught.value.body.to_wire() == b'{"error":"missing or invalid Authorization header"}'
    with pytest.raises(NodeCallRefused) as caught:
        await frontend.drain("any", "Bearer  s3cret")
    assert caught.value.body.to_wire() == b'{"error":"invalid registration token"}'


async def test_registering_needs_the_token_in_the_body_as_well() -> None:
    frontend = InMemoryFrontend(token="s3cret")
    refused = await refusal(frontend)
    assert json.loads(refused.body.to_wire()) == {
        "error": {"code": 401, "message": "registration token required", "type": "node_error"}
    }
    assert (await refusal(frontend, token="S3cret")).message == "invalid registration token"
    assert (await register(frontend, token="s3cret")).status == "healthy"


async def test_a_seed_frontend_with_user_authentication_refuses_the_token_where_it_is_not_exempt() -> None:
    """H-30"""
    for generation, refuses in (("seed", True), ("newer", False)):
        frontend = InMemoryFrontend(
            generation="seed" if generation == "seed" else "newer", token="s3cret", api_auth=True
        )
        row = await register(frontend, token="s3cret")
        for endpoint in ("drain", "models", "resume", "delete", "deregister"):
            try:
                await getattr(frontend, endpoint)(row.id, "Bearer s3cret")
                refused = False
            except NodeCallRefused as error:
                refused = error.status == 401
            assert refused is (refuses and endpoint in {"models", "resume", "delete"})


# Faults and the record of calls.


async def test_every_call_is_recorded_in_order_with_its_answer(frontend: InMemoryFrontend) -> None:
    row = await register(frontend)
    await beat(frontend, row)
    with pytest.raises(NodeCallRefused):
        await frontend.drain("nobody", "")
    frontend.offline = True
    with pytest.raises(FrontendUnavailable):
        await frontend.models(row.id, "")
    assert [(call.endpoint, call.node_id, call.status) for call in frontend.calls] == [
        ("register", "", 201),
        ("heartbeat", row.id, 200),
        ("drain", "nobody", 500),
        ("models", row.id, 0),
    ]


async def test_an_answer_set_beforehand_comes_as_often_as_asked_and_changes_nothing(
    frontend: InMemoryFrontend,
) -> None:
    row = await register(frontend)
    frontend.answer_next(503, times=2)
    for _ in range(2):
        with pytest.raises(NodeCallRefused, match="503"):
            await frontend.drain(row.id, "")
    assert row.status == "healthy"
    await frontend.drain(row.id, "")
    assert row.status == "draining"


async def test_a_call_nobody_waits_for_any_more_has_no_effect(frontend: InMemoryFrontend) -> None:
    row = await register(frontend)
    frontend.slow_s = 30
    with anyio.move_on_after(10):
        await frontend.drain(row.id, "")
    await anyio.sleep(60)
    assert row.status == "healthy"
    assert frontend.calls[-1].status == 0


async def test_the_token_does_not_show_in_the_record(frontend: InMemoryFrontend) -> None:
    frontend.token = "s3cret"
    await register(frontend, token="s3cret")
    assert "s3cret" not in repr(frontend.calls)
