"""Replies fit the bus, whatever their error says."""

import pytest

from localai_worker.app.commands.command import fitting
from localai_worker.domain.messages.backend import BackendDeleteReply
from localai_worker.domain.messages.backend_list import BackendListReply, NodeBackendInfo
from localai_worker.domain.messages.model import ModelStopReply, ModelUnloadReply

KEYS = tuple(f"organisation/model-{number}#0" for number in range(50))


@pytest.mark.parametrize("text", ["x" * 300_000, "\n" * 300_000, "\N{SNOWMAN}" * 100_000])
def test_a_long_error_is_cut_so_that_the_whole_reply_fits(text: str) -> None:
    """N-B30: what exceeds the bus's payload is lost, and the frontend waits its timeout out."""
    for reply in (
        ModelUnloadReply.failed(text),
        BackendDeleteReply.failed(text, stopped=KEYS),
        ModelStopReply.failed(text, process_key="m" * 500 + "#0"),
    ):
        assert 2000 < len(fitting(reply, 4096, ModelUnloadReply.failed)) <= 4096


def test_an_error_is_never_longer_than_helps_anybody() -> None:
    assert len(fitting(ModelUnloadReply.failed("x" * 300_000), 1 << 20, ModelUnloadReply.failed)) < 66_000


def test_a_short_reply_stays_as_it_is() -> None:
    for reply in (ModelUnloadReply(success=True), ModelUnloadReply.failed("why")):
        assert fitting(reply, 1 << 20, ModelUnloadReply.failed) == reply.to_wire()


def test_a_reply_whose_fields_alone_are_too_large_gives_way_to_one_that_says_so() -> None:
    """Half a list would pass for the whole; no reply at all lets the frontend wait its timeout out."""
    rows = tuple(NodeBackendInfo(name=f"backend-{number}") for number in range(200))
    written = fitting(BackendListReply(backends=rows), 4096, BackendListReply.failed)
    reply = BackendListReply.from_wire(written)
    assert reply.backends == ()
    assert reply.error.startswith("the reply takes 1")
    assert reply.error.endswith(" bytes and the bus only 4096; raise max_payload on the NATS server")
    many = BackendDeleteReply.failed("no space left", stopped=KEYS)
    assert b"no space left" in fitting(many, 512, BackendDeleteReply.failed)
