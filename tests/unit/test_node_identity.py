"""Who the node is, on disk: kept from the registration until it leaves, for the worker's eyes only."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.filesystem.local import LocalFileSystem
from localai_worker.adapters.memory.filesystem import InMemoryFileSystem
from localai_worker.domain.errors import MalformedMessage
from localai_worker.domain.messages.registration import RegisterReply, RegisterRequest
from localai_worker.domain.node_identity import IdentityStore, NodeIdentity, stated_by

REQUEST = RegisterRequest(
    name="gpu-1",
    address="gpu-1:50051",
    http_address="gpu-1:50050",
    token="s3cret",
    total_vram=80,
    available_vram=70,
    total_disk=10,
    available_disk=5,
    labels={"zone": "a"},
)
REPLY = RegisterReply(id="id-1", status="healthy", nats_jwt="a.jwt", nats_user_seed="SUSEED")
IDENTITY = NodeIdentity.of("http://frontend", REQUEST, REPLY)


def store(filesystem: InMemoryFileSystem) -> IdentityStore:
    return IdentityStore(filesystem, Path("/state/identity.json"))


async def test_what_was_registered_comes_back_until_it_is_forgotten() -> None:
    kept = store(InMemoryFileSystem())
    assert await kept.load() is None
    await kept.save(IDENTITY)
    assert await kept.load() == IDENTITY
    assert IDENTITY.reply == REPLY
    await kept.forget()
    await kept.forget()
    assert await kept.load() is None


async def test_the_file_holds_credentials_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "identity.json"
    await IdentityStore(LocalFileSystem(), path).save(IDENTITY)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "s3cret" not in path.read_text()
    assert "SUSEED" not in repr(IDENTITY)


def test_only_what_another_registration_could_change_counts_as_stated() -> None:
    moving = replace(REQUEST, token="x", available_vram=1, available_ram=2, total_disk=3, available_disk=4)
    assert stated_by(moving) == stated_by(REQUEST)
    for change in (
        {"address": "gpu-1:60000"},
        {"total_vram": 81},
        {"labels": {"zone": "b"}},
        {"vram_budget": "80%"},
        {"capability": "nvidia"},
        {"max_replicas_per_model": 2},
        {"total_ram": 7},
    ):
        assert stated_by(replace(REQUEST, **change)) != stated_by(REQUEST)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"version":1}', b'{"version":9,"node_id":"x"}']
)
async def test_a_file_that_cannot_be_read_is_told_and_means_none(
    content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    filesystem = InMemoryFileSystem()
    filesystem.put(Path("/state/identity.json"), content)
    assert await store(filesystem).load() is None
    assert "identity unreadable" in caplog.text


@given(st.integers(0, 500), st.integers(0, 255))
def test_a_file_changed_anywhere_is_refused_or_read(at: int, byte: int) -> None:
    content = bytearray(IDENTITY.to_bytes())
    content[at % len(content)] = byte
    try:
        NodeIdentity.from_bytes(bytes(content))
    except MalformedMessage:
        return


async def test_an_identity_that_cannot_be_written_leaves_no_older_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    filesystem = InMemoryFileSystem()
    kept = store(filesystem)
    await kept.save(IDENTITY)
    filesystem.capacity_bytes = 1
    await kept.save(replace(IDENTITY, node_id="id-2"))
    assert await kept.load() is None
    assert "identity not kept" in caplog.text
