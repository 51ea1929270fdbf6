"""Bad input to every message: MalformedMessage or the zero value, never another exception."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localai_worker.domain.errors import MalformedMessage
from localai_worker.domain.messages.backend import (
    BackendDeleteReply,
    BackendInstallReply,
    BackendInstallRequest,
    BackendStopRequest,
    BackendUpgradeReply,
)
from localai_worker.domain.messages.backend_list import BackendListReply, NodeBackendInfo
from localai_worker.domain.messages.files import (
    FilesEnsureReply,
    FilesListdirReply,
    FilesStageReply,
    FilesTempReply,
)
from localai_worker.domain.messages.model import (
    ModelDeleteReply,
    ModelsRunningReply,
    ModelStopReply,
    ModelStopRequest,
    ModelUnloadReply,
)
from localai_worker.domain.messages.wire import WireObject

from .catalogue import DEMANDING, EVERY_KIND, EVERY_STRICT_KIND, LENIENT


def refusal(kind: type[WireObject], body: bytes) -> MalformedMessage | None:
    """How `kind` refuses `body`; None if it reads it. Any other exception fails the test."""
    try:
        kind.from_wire(body)
    except MalformedMessage as error:
        return error
    return None


DEEP = 100_000
NOT_ONE_OBJECT = {
    "blank": b" \n",
    "byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": "{}".encode("utf-16"),
    "trailing text": b"{} x",
    "second object": b"{}{}",
    "NaN": b'{"x":NaN}',
    "Infinity": b'{"x":-Infinity}',
    "array": b"[]",
    "string": b'"backend"',
    "number": b"9" * 10_000,
    "cut": b'{"backend":"llama',
    "raw control character": b'{"backend":"a\nb"}',
    "not text": bytes(range(256)),
    "open arrays": b"[" * DEEP,
    "open objects": b'{"a":' * DEEP,
    "deep arrays": b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"x":' * DEEP + b"1" + b"}" * DEEP,
}


@pytest.mark.parametrize("body", NOT_ONE_OBJECT.values(), ids=NOT_ONE_OBJECT.keys())
@pytest.mark.parametrize("kind", EVERY_STRICT_KIND)
def test_a_body_that_is_not_one_json_object_is_malformed(kind: type[WireObject], body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        kind.from_wire(body)


@pytest.mark.parametrize("kind", EVERY_KIND)
@settings(deadline=None, max_examples=40)
@given(body=st.binary() | st.text(alphabet='{}[]":,\\u0123eE.-+ntfalsr \n').map(str.encode))
def test_any_bytes_read_as_a_message_or_are_malformed(kind: type[WireObject], body: bytes) -> None:
    if error := refusal(kind, body):
        assert str(error).startswith("invalid request: ")
        assert error.reason


WRONG_VALUES = [
    b"[]",
    b"{}",
    b'"x"',
    b"1",
    b"0.5",
    b"true",
    b'["x"]',
    b"[1]",
    b'[{"x":1}]',
    b"[[]]",
    b"9" * 10_000,
]


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_field_takes_any_json_value_or_names_itself_in_the_refusal(kind: type[WireObject]) -> None:
    refusals = []
    for field in dataclasses.fields(kind):
        for value in WRONG_VALUES:
            if error := refusal(kind, b'{"%s":%s}' % (field.name.encode(), value)):
                assert field.name in error.reason or kind in DEMANDING
                refusals.append(error)
    assert refusals or kind in LENIENT


@pytest.mark.parametrize("kind", [kind for kind in EVERY_KIND if kind not in DEMANDING])
def test_null_an_empty_object_null_fields_and_unknown_fields_read_as_zero_values(
    kind: type[WireObject],
) -> None:
    zero = kind.from_wire(b"{}")
    names = [field.name for field in dataclasses.fields(kind)]
    assert not any(getattr(zero, name) for name in names)
    nulls = ",".join(f'"{name}":null' for name in names)
    assert kind.from_wire(b"null") == zero
    assert kind.from_wire(b"{" + nulls.encode() + b"}") == zero
    assert kind.from_wire(b'{"nobody_knows":[{"this":1e999}],"":null}') == zero


def test_the_last_of_duplicate_keys_wins_in_any_letter_case_and_null_does_not_count() -> None:
    body = b'{"backend":"a","BACKEND":"b","Backend":null,"Replica_Index":1,"replica_index":2}'
    request = BackendInstallRequest.from_wire(body)
    assert (request.backend, request.replica_index) == ("b", 2)
    with pytest.raises(MalformedMessage, match='"backend"'):
        BackendInstallRequest.from_wire(b'{"backend":1,"backend":"b"}')


def test_invalid_utf8_and_half_escapes_read_as_replacement_characters() -> None:
    request = BackendInstallRequest.from_wire(b'{"backend":"a\xff\xe2\x82z","model_id":"\\ud83dx"}')
    assert (request.backend, request.model_id) == ("a\ufffd\ufffd\ufffdz", "\ufffdx")


def test_a_hundred_levels_are_read_and_one_more_is_not() -> None:
    """Deeper than any message, and far from what could exhaust the stack of a small thread."""

    def nested(levels: int) -> bytes:
        return b'{"backend":"b","x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"

    assert BackendInstallRequest.from_wire(nested(100)).backend == "b"
    with pytest.raises(MalformedMessage, match="more than 100 levels deep"):
        BackendInstallRequest.from_wire(nested(101))


def test_many_rows_and_brackets_inside_strings_are_no_depth() -> None:
    rows = tuple(NodeBackendInfo(name='[{"\\' * 50) for _ in range(300))
    listing = BackendListReply(backends=rows)
    assert BackendListReply.from_wire(listing.to_wire()) == listing


@pytest.mark.parametrize("body", [b"[]," * 101 + b'"' + b'\\"' * 200_000, b"[]," * 101 + b'"\\'])
def test_an_unterminated_string_is_malformed_however_many_quotes_it_escapes(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        BackendInstallRequest.from_wire(body)


def test_a_huge_string_is_read_whole() -> None:
    huge = "x" * 5_000_000
    assert BackendInstallRequest.from_wire(b'{"backend":"%s"}' % huge.encode()).backend == huge


@pytest.mark.parametrize("number", ["1.0", "1e0", "2147483648", "-2147483649", "9" * 10_000, '"1"', "true"])
def test_a_replica_index_that_go_would_refuse_is_malformed(number: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        BackendInstallRequest.from_wire(b'{"backend":"b","replica_index":%s}' % number.encode())
    assert '"replica_index"' in caught.value.reason
    assert "an integer of -2147483648 to 2147483647" in caught.value.reason
    assert len(caught.value.reason) < 200


def test_a_refusal_says_what_came_and_never_repeats_a_string() -> None:
    with pytest.raises(MalformedMessage) as caught:
        BackendInstallRequest.from_wire(b'{"backend":"b","force":"s3cret"}')
    assert str(caught.value) == 'invalid request: field "force": want true or false, got a string'
    with pytest.raises(MalformedMessage) as caught:
        ModelStopRequest.from_wire(b'{"process_key":["m#0"]}')
    assert str(caught.value) == 'invalid request: field "process_key": want a string, got a list'


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"backend":""}', b'{"backend":null}'])
def test_an_empty_stop_means_every_process(body: bytes) -> None:
    """S-W33: an empty body, JSON null and an empty object all mean stop everything."""
    request = BackendStopRequest.from_wire(body)
    assert request.stops_all
    assert not request.force
    assert request.to_wire() == b"null"


def test_a_forced_stop_without_a_backend_means_every_process_by_force() -> None:
    """S-W33: `{"force":true}` means stop everything, without Free."""
    request = BackendStopRequest.from_wire(b'{"force":true}')
    assert request.stops_all
    assert request.force
    assert not BackendStopRequest.from_wire(b'{"backend":"m","force":true}').stops_all


@pytest.mark.parametrize(
    "body", [b" ", b"{", b"[]", b'"m"', b"0", b"false", b'{"backend":1}', b'{"force":1}', b"m"]
)
def test_a_malformed_stop_stops_nothing(body: bytes) -> None:
    """N-B31: a seed worker read these as stop-all. S-W33: malformed JSON is rejected."""
    with pytest.raises(MalformedMessage):
        BackendStopRequest.from_wire(body)


UNDECODABLE = MalformedMessage("unexpected end of JSON input")
DETAILED = "invalid request: unexpected end of JSON input"


def test_the_reply_to_an_undecodable_request_tells_the_json_error() -> None:
    assert BackendInstallReply.malformed(UNDECODABLE) == BackendInstallReply(success=False, error=DETAILED)
    assert ModelUnloadReply.malformed(UNDECODABLE) == ModelUnloadReply(success=False, error=DETAILED)
    stop = (
        b'{"matched":false,"freed":false,"terminated":false,"process_key":"","error":"%s"}'
        % DETAILED.encode()
    )
    assert ModelStopReply.malformed(UNDECODABLE).to_wire() == stop


@pytest.mark.parametrize("reply", [BackendUpgradeReply, BackendDeleteReply])
def test_only_the_reply_to_an_undecodable_request_reports_no_processes(
    reply: type[BackendUpgradeReply] | type[BackendDeleteReply],
) -> None:
    assert not reply.malformed(UNDECODABLE).reports_stopped_processes
    assert reply.malformed(UNDECODABLE).error == DETAILED
    assert reply.failed("no", stopped=("m#0",)).reports_stopped_processes
    assert reply.succeeded(stopped=()).to_wire() == b'{"success":true,"reports_stopped_processes":true}'


def test_model_delete_and_files_tell_no_detail_of_an_undecodable_request() -> None:
    assert ModelDeleteReply.malformed(UNDECODABLE) == ModelDeleteReply(success=False, error="invalid request")
    for reply in (FilesEnsureReply, FilesStageReply, FilesTempReply, FilesListdirReply):
        assert reply.malformed(UNDECODABLE).to_wire() == b'{"error":"invalid request"}'


def test_a_failure_without_a_text_is_still_a_failure() -> None:
    """The frontend reads a files reply or a listing with an empty error as a success."""
    assert FilesEnsureReply.failed("").to_wire().startswith(b'{"error":"it failed')
    assert BackendListReply.failed("").error
    assert ModelsRunningReply.failed("").error
    assert BackendInstallReply.failed("").error
    assert BackendDeleteReply.failed("").error
    assert ModelDeleteReply.failed("").error
    assert ModelStopReply.failed("", process_key="m#0").error
