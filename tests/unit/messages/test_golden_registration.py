"""The register, heartbeat and drain-poll exchanges of golden/http, read and written from both ends."""

import json

import pytest

from localai_worker.domain.errors import MalformedMessage
from localai_worker.domain.messages.node_status import (
    LoadedModel,
    NodeError,
    decode_loaded_models,
    encode_loaded_models,
)
from localai_worker.domain.messages.registration import Heartbeat, RegisterReply, RegisterRequest

from .goldens import compact, http_exchange, stated, thinned

REGISTRATIONS = [
    "seed-01-register-gpu",
    "seed-02-register-cpu-labels-pending",
    "newer-15-register-nats-credentials",
]


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_a_golden_registration_reads_as_its_fields_and_writes_the_same_object(name: str) -> None:
    body = http_exchange(name)["request"]["body"]
    request = RegisterRequest.from_wire(compact(body))
    assert stated(request) == thinned(body)
    assert json.loads(request.to_wire()) == body


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_a_golden_answer_reads_as_its_fields_and_writes_back_byte_for_byte(name: str) -> None:
    body = http_exchange(name)["response"]["body"]
    reply = RegisterReply.from_wire(compact(body) + b"\n")
    assert stated(reply) == thinned(body)
    assert reply.to_wire() == compact(body)


@pytest.mark.parametrize("name", ["seed-04-heartbeat", "seed-05-heartbeat-unknown-node"])
def test_a_golden_heartbeat_writes_back_byte_for_byte(name: str) -> None:
    wire = compact(http_exchange(name)["request"]["body"])
    assert Heartbeat.from_wire(wire).to_wire() == wire


@pytest.mark.parametrize("name", ["seed-03-register-wrong-bearer", "seed-05-heartbeat-unknown-node"])
def test_a_golden_error_reads_as_its_message_and_writes_back_byte_for_byte(name: str) -> None:
    body = http_exchange(name)["response"]["body"]
    error = NodeError.from_wire(compact(body))
    expected = body["error"] if isinstance(body["error"], str) else body["error"]["message"]
    assert error.message == expected
    assert error.to_wire() == compact(body)


def test_the_golden_drain_poll_shows_one_request_in_flight() -> None:
    body = http_exchange("seed-07-drain-poll-models")["response"]["body"]
    rows = decode_loaded_models(compact(body))
    assert [row.in_flight for row in rows] == [1]
    assert encode_loaded_models(rows) == compact(body)


def test_a_401_object_is_not_read_as_nothing_in_flight() -> None:
    """H-30: a seed frontend with authentication answers the drain poll with an error object."""
    with pytest.raises(MalformedMessage, match="want a JSON array, got an object"):
        decode_loaded_models(b'{"error":{"code":401,"message":"missing","type":"node_error"}}')


def test_no_rows_write_as_an_empty_array_and_null_reads_as_none() -> None:
    assert encode_loaded_models([]) == b"[]"
    assert decode_loaded_models(b"[]") == decode_loaded_models(b"null") == ()


def test_a_row_that_is_no_object_spoils_the_whole_answer() -> None:
    with pytest.raises(MalformedMessage, match="element 1: want an object, got the number 3"):
        decode_loaded_models(b"[{},3]")
    with pytest.raises(MalformedMessage, match=r'"in_flight": .* got the number 0\.5'):
        decode_loaded_models(b'[{"in_flight":0.5}]')


def test_a_newer_row_carries_its_replica_index_also_when_it_is_zero() -> None:
    row = LoadedModel(model_name="m", replica_index=0)
    assert b'"replica_index":0' in row.to_wire()
    assert decode_loaded_models(encode_loaded_models([row])) == (row,)


def test_a_registration_leaves_out_what_is_unknown_and_sends_what_is_zero() -> None:
    request = RegisterRequest(name="n", address="a:1", http_address="a:0", available_disk=0)
    assert request.to_wire() == (
        b'{"name":"n","address":"a:1","http_address":"a:0","total_vram":0,"available_vram":0,"gpu_vendor":"",'
        b'"available_disk":0}'
    )


def test_a_registration_with_a_number_go_would_refuse_is_malformed() -> None:
    for number in (b"1.5e10", b"12.0", b"-1", b'"5"'):
        with pytest.raises(MalformedMessage, match='"total_vram"'):
            RegisterRequest.from_wire(b'{"name":"n","total_vram":' + number + b"}")


def test_secrets_stay_out_of_a_messages_repr() -> None:
    request = RegisterRequest(name="n", address="a", http_address="h", token="s3cret")
    reply = RegisterReply(id="i", api_token="s3cret", nats_jwt="s3cret", nats_user_seed="s3cret")
    assert "s3cret" not in repr(request) + repr(reply)


@pytest.mark.parametrize("body", [b"{}", b"null", b'{"id":""}', b'{"id":null}', b'{"status":"healthy"}'])
def test_an_answer_without_an_id_is_malformed(body: bytes) -> None:
    """Upstream goes on without an id and beats on `/api/node//heartbeat`."""
    with pytest.raises(MalformedMessage, match='"id"'):
        RegisterReply.from_wire(body)


def test_an_answer_reads_although_fields_that_only_inform_are_odd() -> None:
    reply = RegisterReply.from_wire(
        b'{"id":"i","created_at":1776755200,"name":null,"node_type":{},"more":[1]}'
    )
    assert reply == RegisterReply(id="i")


def test_a_repeated_registration_answers_the_year_one() -> None:
    assert RegisterReply.from_wire(b'{"id":"i","created_at":"0001-01-01T00:00:00Z"}').id == "i"


def test_a_heartbeat_leaves_out_what_is_unknown_and_sends_a_full_disk() -> None:
    assert Heartbeat(available_ram=7, available_disk=0).to_wire() == b'{"available_ram":7,"available_disk":0}'
    assert Heartbeat().to_wire() == b"{}"


@pytest.mark.parametrize("number", [b"1.5e10", b"12.0", b"1e3", b"-5", b'"7"', b"[]", b"true"])
def test_a_frontend_stores_a_wrongly_typed_number_of_a_heartbeat_as_zero(number: bytes) -> None:
    beat = Heartbeat.from_wire(b'{"available_vram":' + number + b',"available_ram":7}')
    assert beat == Heartbeat(available_vram=0, available_ram=7)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"available_vram":null}'])
def test_a_frontend_reads_a_heartbeat_that_says_nothing_as_a_timestamp(body: bytes) -> None:
    assert Heartbeat.from_wire(body) == Heartbeat()


def test_an_error_keeps_its_message_whatever_its_code_is() -> None:
    error = NodeError.from_wire(b'{"error":{"code":"invalid_api_key","message":"no","type":"auth"}}')
    assert error == NodeError(message="no", code=None, type="auth")


@pytest.mark.parametrize("body", [b"{}", b'{"error":null}', b'{"error":5}', b"<html>502</html>", b""])
def test_a_body_that_is_no_error_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        NodeError.from_wire(body)
