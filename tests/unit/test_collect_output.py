"""From output files to log lines: a worker's backends on an in-memory machine, in virtual time."""

from collections.abc import AsyncIterator

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.memory.machine import FakeProgram
from localai_worker.app.virtual_time import VIRTUAL_TIME, AnyioBackend
from localai_worker.domain.backend import ReplicaKey
from localai_worker.domain.output_text import LineSplitter, plain
from localai_worker.domain.ports.processes import ProcessExit
from tests.supervised import KEY, LLAMA, LLAMA_CPP, Node


@pytest.fixture
def anyio_backend() -> AnyioBackend:
    return VIRTUAL_TIME


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    async with node.supervisor.running():
        yield node


def shown(node: Node, identifier: str = "qwen") -> list[tuple[str, str]]:
    return [(line.stream, line.text) for line in node.logs.lines(identifier)]


async def test_lines_of_both_streams_arrive_with_the_time_they_were_printed(node: Node) -> None:
    await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    (process,) = node.machine.running
    process.print("loading\nhalf a ")
    await anyio.sleep(5)
    process.print("line\n")
    process.print("warning\n", stderr=True)
    await anyio.sleep(1)
    assert shown(node) == [("stdout", "loading"), ("stdout", "half a line"), ("stderr", "warning")]
    first, second, _ = node.logs.lines("qwen#0")
    assert (second.at - first.at).total_seconds() == pytest.approx(5)


async def test_what_was_printed_before_it_was_ready_and_at_its_end_is_kept_after_it(node: Node) -> None:
    """Upstream keeps the ring of a process that has ended, too: that is when somebody looks."""
    chatty = node.install("chatty", FakeProgram(listens_after_s=5, stderr="starting\n"))
    await node.supervisor.start(KEY, chatty, frozenset({"chatty"}))
    (process,) = node.machine.running
    process.print("no line end", stderr=True)
    process.end(ProcessExit(code=1))
    await anyio.sleep(1)
    assert node.machine.running == ()
    assert shown(node) == [("stderr", "starting"), ("stderr", "no line end")]


async def test_the_next_process_of_a_replica_goes_on_in_the_same_ring(node: Node) -> None:
    for text in ("one\n", "two\n"):
        await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
        node.machine.running[0].print(text)
        await node.supervisor.stop(KEY)
    assert [text for _, text in shown(node)] == ["one", "two"]


async def test_replicas_have_rings_of_their_own(node: Node) -> None:
    for replica in (0, 1):
        await node.supervisor.start(ReplicaKey("qwen", replica), LLAMA_CPP, LLAMA)
        node.machine.running[-1].print(f"{replica}\n")
    await anyio.sleep(1)
    assert [text for _, text in shown(node, "qwen#1")] == ["1"]
    assert [text for _, text in shown(node, "qwen")] == ["0", "1"]


async def test_a_flood_says_how_much_was_left_out(node: Node) -> None:
    await node.supervisor.start(KEY, LLAMA_CPP, LLAMA)
    node.machine.running[0].print("x" * 99 + "\n" + ("y" * 63 + "\n") * 2048)
    await anyio.sleep(1)
    texts = [text for _, text in shown(node)]
    assert len(texts) == 1000
    node.machine.running[0].print("x" * 99 + "\n" + "z" * 131071 + "\n")
    await anyio.sleep(1)
    assert any(
        text.startswith("... 100 bytes came too fast to be shown; see /node/logs/") for _, text in shown(node)
    )


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        (b"\x1b[31mred\x1b[0m\n", "red"),
        (b"  10%\r  50%\r 100%\r\n", " 100%"),
        (b"bell\x07 and nul\x00\n", "bell and nul"),
        (b"\x1b]0;title\x07named\n", "named"),
        (b"tab\there\n", "tab\there"),
        (b"\xff\xfe broken\n", "\ufffd\ufffd broken"),
        ("grüße\n".encode(), "grüße"),
        (b"\n", ""),
    ],
)
def test_lines_are_readable(printed: bytes, text: str) -> None:
    """N-B30: colours, progress bars and bytes that are no text."""
    assert LineSplitter().lines(printed) == [text]


def test_a_line_that_never_ends_is_cut() -> None:
    splitter = LineSplitter()
    lines = splitter.lines(b"x" * 100_000)
    assert [len(line) for line in lines] == [16384] * 6
    assert splitter.end() == ["x" * (100_000 - 6 * 16384)]


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])), st.data())
def test_however_the_bytes_come_the_lines_are_the_same(text: str, data: st.DataObject) -> None:
    whole = "\n".join(text)
    encoded = whole.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=8)))
    splitter, lines = LineSplitter(), list[str]()
    for begin, end in zip([0, *cuts], [*cuts, len(encoded)], strict=True):
        lines += splitter.lines(encoded[begin:end])
    assert "\n".join([*lines, *splitter.end()]) == whole
    assert plain(whole) == whole
