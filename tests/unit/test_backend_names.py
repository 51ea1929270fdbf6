"""Backend names that are safe as path components, and the keys of replicas."""

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from localai_worker.domain.backend import (
    MalformedReplicaKey,
    ReplicaKey,
    UnsafeBackendName,
    parse_backend_name,
)

REPLICA = st.integers(0, 2**31 - 1)
MODEL = st.text(min_size=1) | st.text(alphabet="#01ab/", min_size=1)


@pytest.mark.parametrize(
    "name", ["llama-cpp", "cuda12-llama-cpp-development", "my backend", "b#1", "模型", "a..b", "x" * 255]
)
def test_a_plain_directory_name_is_a_backend_name(name: str) -> None:
    assert parse_backend_name(name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ("../../bin/sh", "contains a path separator"),
        ("/bin/sh", "contains a path separator"),
        ("a\\b", "contains a path separator"),
        (".", "begins with a dot"),
        ("..", "begins with a dot"),
        (".install-x", "begins with a dot"),
        ("a\x00b", "contains a control character"),
        ("a\nb", "contains a control character"),
        ("a\x7f", "contains a control character"),
        ("a\x9b", "contains a control character"),
        ("a\udcff", "is not valid UTF-8"),
        ("é" * 128, "is 256 bytes long, more than 255"),
    ],
)
def test_a_name_that_could_leave_the_backends_directory_is_refused(name: str, problem: str) -> None:
    """G-2.8.1, N-B7, G-W5: upstream joins any name to the backends path and executes what it finds."""
    with pytest.raises(UnsafeBackendName) as caught:
        parse_backend_name(name)
    assert (caught.value.name, caught.value.problem) == (name, problem)


def test_a_refusal_says_what_is_wrong_and_what_would_be_right() -> None:
    """G-W5: the text is printable and short whatever the name holds."""
    with pytest.raises(UnsafeBackendName) as caught:
        parse_backend_name("../\x1b[2J" + "x" * 10_000)
    text = str(caught.value)
    assert text.startswith(r"unsafe backend name '../\x1b[2Jxxx")
    assert "contains a path separator" in text
    assert "'llama-cpp'" in text
    assert text.isprintable()
    assert len(text) < 300


@settings(deadline=None)
@given(name=st.text() | st.text(alphabet="./\\a~\x00"))
def test_an_accepted_name_stays_one_component_on_any_platform(name: str) -> None:
    """N-B7: one safe path component only."""
    try:
        parse_backend_name(name)
    except UnsafeBackendName:
        return
    assert PurePosixPath("/backends", name).parent == PurePosixPath("/backends")
    assert "\\" not in name
    assert PureWindowsPath(name).name not in {"", ".", ".."}
    assert len(name.encode()) <= 255


def test_a_key_is_the_model_and_the_replica_or_the_backend_where_no_model_is_named() -> None:
    """S-W08: replicas are distinct; the backend's name stands in for an empty model id."""
    first = ReplicaKey.for_request(model_id="Qwen3-35B", backend="llama-cpp", replica=0)
    second = ReplicaKey.for_request(model_id="Qwen3-35B", backend="llama-cpp", replica=1)
    idle = ReplicaKey.for_request(model_id="", backend="llama-cpp", replica=0)
    assert [str(key) for key in (first, second, idle)] == ["Qwen3-35B#0", "Qwen3-35B#1", "llama-cpp#0"]
    assert len({first, second, idle}) == 3


@settings(deadline=None)
@given(model=MODEL, replica=REPLICA)
def test_a_key_reads_back_from_its_text(model: str, replica: int) -> None:
    """S-W25: split at the last `#`, for model ids may hold it."""
    key = ReplicaKey(model, replica)
    assert ReplicaKey.parse(str(key)) == key


def test_a_key_is_split_at_its_last_hash() -> None:
    """S-W25: the golden `org/model#x#1`."""
    assert ReplicaKey.parse("org/model#x#1") == ReplicaKey("org/model#x", 1)


@pytest.mark.parametrize(
    "text",
    ["", "m", "#0", "m#", "m#-1", "m#+1", "m# 1", "m#1 ", "m#01", "m#1.0", "m#1_0", "m#²", "m#٣", "m#x", "#",
     "m#2147483648", "m#" + "9" * 5000, "m#0\n"],
)  # fmt: skip
def test_a_bad_suffix_or_an_empty_model_is_rejected(text: str) -> None:
    """S-W25: nothing but a plain replica index after a non-empty model makes a key."""
    with pytest.raises(MalformedReplicaKey) as caught:
        ReplicaKey.parse(text)
    assert caught.value.text == text
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("model", "replica"), [("", 0), ("m", -1), ("m", 2**31)])
def test_a_key_the_wire_could_not_carry_cannot_be_made(model: str, replica: int) -> None:
    with pytest.raises(MalformedReplicaKey):
        ReplicaKey(model, replica)


def test_a_bare_model_id_means_all_its_replicas_and_an_exact_key_only_itself() -> None:
    """S-W09: bare id to all replicas, exact key to itself, unknown to none."""
    keys = [ReplicaKey("m", 0), ReplicaKey("m", 1), ReplicaKey("mm", 0), ReplicaKey("m#0", 0)]

    def meant(identifier: str) -> list[str]:
        return [str(key) for key in keys if key.matches(identifier)]

    assert meant("m") == ["m#0", "m#1"]
    assert meant("m#1") == ["m#1"]
    assert meant("m#0") == ["m#0"]
    assert meant("m#0#0") == ["m#0#0"]
    assert meant("m#2") == meant("nobody") == meant("") == meant("#") == meant("m#") == []


def test_a_bare_model_id_may_hold_a_hash_itself() -> None:
    """S-W09: golden model `org/model#x`; its base name is another model."""
    key = ReplicaKey("org/model#x", 1)
    assert key.matches("org/model#x")
    assert key.matches("org/model#x#1")
    assert not key.matches("org/model")


@settings(deadline=None)
@given(model=MODEL, replica=REPLICA, other=MODEL, other_replica=REPLICA)
def test_a_key_never_matches_another_models_key(
    model: str, replica: int, other: str, other_replica: int
) -> None:
    """S-W09: an exact key resolves to itself."""
    key, stranger = ReplicaKey(model, replica), ReplicaKey(other, other_replica)
    assume(key != stranger)
    assert key.matches(str(key))
    assert not key.matches(str(stranger))
