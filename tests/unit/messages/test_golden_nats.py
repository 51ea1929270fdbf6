"""Every exchange of golden/nats, read and written from both ends."""

import pytest

from localai_worker.domain.errors import MalformedMessage
from localai_worker.domain.messages.backend import BackendInstallReply, BackendInstallRequest
from localai_worker.domain.messages.backend_list import BackendListReply
from localai_worker.domain.messages.wire import WireObject
from localai_worker.domain.messages.writing import EMPTY_REQUEST, NO_BODY

from .goldens import CONVERSATIONS, GOLDEN, Exchange, nats_exchanges, stated, thinned

EXCHANGES = nats_exchanges()


def named(exchange: Exchange) -> str:
    return exchange.name


def test_the_goldens_touch_every_subject_but_the_one_that_has_no_example() -> None:
    assert {exchange.tail for exchange in EXCHANGES} == set(CONVERSATIONS)
    assert len(EXCHANGES) == 30


@pytest.mark.parametrize("exchange", [e for e in EXCHANGES if e.request_wire], ids=named)
def test_a_golden_request_reads_as_its_fields_and_writes_back_byte_for_byte(exchange: Exchange) -> None:
    request, _ = CONVERSATIONS[exchange.tail]
    wire = exchange.request_wire
    assert wire is not None
    if request is None:
        assert wire in {EMPTY_REQUEST, NO_BODY}
        return
    assert_speaks(request, wire, exchange.request or {})


@pytest.mark.parametrize("exchange", [e for e in EXCHANGES if e.reply_wire is not None], ids=named)
def test_a_golden_reply_reads_as_its_fields_and_writes_back_byte_for_byte(exchange: Exchange) -> None:
    _, reply = CONVERSATIONS[exchange.tail]
    assert reply is not None
    assert exchange.reply_wire is not None
    assert_speaks(reply, exchange.reply_wire, exchange.reply)


def assert_speaks(kind: type[WireObject], wire: bytes, document: dict[str, object]) -> None:
    message = kind.from_wire(wire)
    assert stated(message) == thinned(document)
    assert message.to_wire() == wire


def test_the_golden_empty_body_gets_the_golden_refusal() -> None:
    exchange = next(e for e in EXCHANGES if e.request_wire == b"")
    with pytest.raises(MalformedMessage) as caught:
        BackendInstallRequest.from_wire(b"")
    assert BackendInstallReply.malformed(caught.value).to_wire() == exchange.reply_wire


@pytest.mark.parametrize("name", ["list-reply-empty", "list-reply-seed", "list-reply-newer"])
def test_a_golden_listing_writes_back_byte_for_byte(name: str) -> None:
    wire = (GOLDEN / "backends" / f"{name}.json").read_bytes()
    assert BackendListReply.from_wire(wire).to_wire() == wire
