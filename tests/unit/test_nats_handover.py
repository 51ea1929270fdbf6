"""A subscription that moves: whatever comes by which connection, each message is delivered once."""

from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.nats.handover import Feed
from localai_worker.domain.ports.bus import BusMessage


class Reader:
    """Keeps what it is given."""

    subject = "a"

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def deliver(self, message: BusMessage, no_responders: bool) -> None:
        assert not no_responders
        self.payloads.append(message.payload)

    def end(self) -> None:
        raise AssertionError("nothing ends here")


def message(number: int) -> BusMessage:
    return BusMessage("a", str(number).encode(), f"_INBOX.{number}")


@given(cuts=st.tuples(*[st.integers(0, 20)] * 3).map(sorted))
def test_each_message_is_delivered_once_whenever_the_connections_take_turns(cuts: list[int]) -> None:
    """The old connection brings all until it is told to stop, the new one all since it was asked."""
    recorded_from, asked_from, stopped_at = cuts
    reader = Reader()
    old, new = Feed(reader), Feed(reader, held=True)
    for number in range(20):
        if number == recorded_from:
            old.keep_record()
        if number < stopped_at:
            old.deliver(message(number), False)
        if number >= asked_from:
            new.deliver(message(number), False)
    new.release(old.stop_record())
    new.deliver(message(20), False)
    assert [int(payload) for payload in reader.payloads] == list(range(21))


def test_servers_of_a_cluster_may_differ_in_their_order() -> None:
    reader = Reader()
    old, new = Feed(reader), Feed(reader, held=True)
    old.keep_record()
    for number in (1, 2, 3):
        old.deliver(message(number), False)
    for number in (3, 1, 2, 4):
        new.deliver(message(number), False)
    new.release(old.stop_record())
    new.deliver(message(5), False)
    assert reader.payloads == [b"1", b"2", b"3", b"4", b"5"]


def test_a_message_sent_twice_comes_twice() -> None:
    reader = Reader()
    old, new = Feed(reader), Feed(reader, held=True)
    old.keep_record()
    for feed in (old, new, new):
        feed.deliver(message(1), False)
    new.release(old.stop_record())
    assert reader.payloads == [b"1", b"1"]


def test_a_move_that_was_called_off_changes_nothing() -> None:
    reader = Reader()
    old = Feed(reader)
    old.keep_record()
    old.deliver(message(1), False)
    assert [each.payload for each, _ in old.stop_record()] == [b"1"]
    old.deliver(message(2), False)
    assert old.stop_record() == []
    assert reader.payloads == [b"1", b"2"]
