"""Whatever bytes arrive on any subject: one reply where one is wanted, no effect, and the worker lives on.

One worker in memory takes all examples, so an effect of one would show in those after it.
"""

import asyncio
import json
from collections.abc import Collection, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from localai_worker.app.commands.command import Command
from localai_worker.app.testing import MemoryNode, memory_node
from localai_worker.app.virtual_time import VirtualTimeLoop
from localai_worker.domain.ports.bus import BusMessage

FIELDS = (
    "backend", "model_id", "backend_galleries", "uri", "name", "alias", "replica_index", "force", "op_id",
    "model_name", "process_key", "expected_address", "address", "config_revision", "key", "local_path",
    "key_prefix",
)  # fmt: skip


@dataclass
class Arena:
    """A worker with two replicas in a virtual-time loop that stands still between examples."""

    loop: VirtualTimeLoop = field(default_factory=VirtualTimeLoop)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    node: MemoryNode = field(init=False)

    async def live(self) -> None:
        async with AsyncExitStack() as stack:
            self.node = await stack.enter_async_context(memory_node())
            self.node.offer("llama-cpp")
            for replica in (0, 1):
                assert (await self.node.install("llama-cpp", "qwen", replica_index=replica)).success
            self.node.parts.filesystem().put(self.node.worker.files.roots.models / "qwen" / "m.gguf", b"GGUF")
            self.ready.set()
            await self.over.wait()

    @property
    def state(self) -> tuple[object, ...]:
        """All that a command could change."""
        node = self.node
        return (
            node.keys,
            [process.backend.freed for process in node.machine.processes],
            node.parts.filesystem().files(),
            node.worker.stop_requested.is_set(),
        )

    def send(self, payload: bytes, *, but: Collection[str] = ()) -> dict[str, list[bytes]]:
        """Send `payload` on every subject, less `but`: all replies by subject. Nothing may have changed."""
        return self.loop.run_until_complete(self._send(payload, but))

    async def _send(self, payload: bytes, but: Collection[str]) -> dict[str, list[bytes]]:
        before = self.state
        replies: dict[str, list[bytes]] = {name: [] for name in self.commands if name not in but}
        inbox = await self.node.bus.subscribe("_INBOX.arena.>")

        async def collect() -> None:
            async for message in inbox:
                replies[message.subject.removeprefix("_INBOX.arena.")].append(message.payload)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect)
            for name in replies:
                subject = self.commands[name].subject
                self.node.bus._send(BusMessage(subject, payload, f"_INBOX.arena.{name}"))
            await anyio.sleep(5)
            await inbox.unsubscribe()
        assert self.state == before, payload
        return replies

    @property
    def commands(self) -> dict[str, Command]:
        """Every command the worker serves, by its subject without the node."""
        found = self.node.worker.control._commands(self.node.subjects)
        return {command.subject.split(".", 2)[2]: command for command in found}


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    loop = VirtualTimeLoop()
    asyncio.set_event_loop(loop)
    arena = Arena(loop)
    life = loop.create_task(arena.live())
    loop.run_until_complete(arena.ready.wait())
    yield arena
    arena.over.set()
    loop.run_until_complete(life)
    asyncio.set_event_loop(None)
    loop.close()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=6,
)
no_text = json_values.filter(lambda value: value is not None and not isinstance(value, str))


def _written(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data.decode(errors="replace"))
    except (ValueError, RecursionError):
        return False
    return True


# Go reads bytes that are no UTF-8 as U+FFFD, so they make no object malformed.
objects = st.dictionaries(
    st.sampled_from(FIELDS) | st.sampled_from([name.upper() for name in FIELDS]) | st.text(max_size=5),
    json_values,
    max_size=5,
).map(_written)
long_numbers = st.integers(1, 400).map(
    lambda digits: b'{"backend":"x","replica_index":' + b"9" * digits + b"}"
)
odd_objects = (
    objects
    | long_numbers
    | objects.filter(lambda text: len(text) > 2).map(lambda text: text[:-1] + b',"\xff\xfe":"\xc3"}')
)
# Objects that are wrong for every command: each field that one reads has the wrong type.
all_wrong = st.fixed_dictionaries(
    dict.fromkeys(FIELDS, no_text.filter(lambda value: not isinstance(value, bool | int)))
).map(_written)
no_objects = json_values.filter(lambda value: value is not None and not isinstance(value, dict)).map(_written)
cut_short = st.builds(
    lambda text, at: text[: at % len(text)], objects.filter(lambda text: len(text) > 3), st.integers(1)
)
duplicates = st.builds(
    lambda name, value: f'{{"backend":1,"{name}":"x","{name}":{json.dumps(value)}}}'.encode(),
    st.sampled_from(["backend", "model_name", "process_key"]),
    no_text.filter(lambda value: not isinstance(value, float)),
)
malformed = st.one_of(
    st.binary(min_size=1, max_size=60).filter(lambda data: not _is_json(data)),
    no_objects,
    all_wrong,
    cut_short.filter(lambda data: data.strip() != b""),
    duplicates,
    objects.map(lambda text: b"\xef\xbb\xbf" + text),
    objects.map(lambda text: text + b"}"),
    st.integers(1, 30_000).map(lambda depth: b"[" * depth + b"]" * depth),
    st.integers(1, 10_000).map(lambda depth: b'{"backend":' * depth + b"1" + b"}" * depth),
    st.sampled_from(
        [b'{"backend":NaN}', b'{"backend":Infinity}', b'{"backend":"x"} x', b"\x00", b"nul", b"'x'"]
    ),
    st.integers(1, 200_000).map(lambda size: b'{"backend":["' + b"x" * size + b'"]}'),
)

# Their bodies are not read, or a wrong one names nothing to unload.
SUCCEED = {"backend.list", "models.running", "model.unload"}


@settings(max_examples=60)
@given(payload=malformed)
@example(payload=b"")
@example(payload=b'{"backend":"llama-cpp","backend":7}')
@example(payload=b'{"backend":[],"process_key":"qwen#0","process_key":[]}')
def test_a_malformed_payload_is_answered_or_ignored_and_has_no_effect(arena: Arena, payload: bytes) -> None:
    """N-B31, S-W33: on every subject but the one whose body is never read and that stops the worker."""
    meant = {"stop"} if payload else {"stop", "backend.stop"}  # without a body it means all
    for name, replies in arena.send(payload, but=meant).items():
        if arena.commands[name].failed is None:
            assert replies == [], name
            continue
        assert len(replies) == 1, (name, replies)
        reply = json.loads(replies[0])
        assert isinstance(reply, dict), name
        assert name in SUCCEED or not reply.get("success", False), (name, reply)


@settings(max_examples=60)
@given(payload=odd_objects)
def test_an_object_of_anything_is_answered_once(arena: Arena, payload: bytes) -> None:
    """Well-formed or not by luck: requests are answered exactly once, about things that do not exist."""
    for name, replies in arena.send(payload, but={"stop", "backend.stop"}).items():
        assert len(replies) == 1, (name, replies)
        assert isinstance(json.loads(replies[0]), dict)


@pytest.mark.parametrize("payload", [b"null", b" null\n", b"{}", b'{"unknown":[[[]]]}', b'{"backend":null}'])
def test_what_says_nothing_asks_for_nothing(arena: Arena, payload: bytes) -> None:
    """Go reads null as every field's zero value; no request finds anything to do with these."""
    for name, replies in arena.send(payload, but={"stop", "backend.stop"}).items():
        assert len(replies) == 1, name
        assert isinstance(json.loads(replies[0]), dict)


def test_ignored_messages_are_logged(arena: Arena, caplog: pytest.LogCaptureFixture) -> None:
    assert arena.send(b'{"backend":', but={"stop"})["backend.stop"] == []
    assert "backend.stop ignored: invalid request" in caplog.text
