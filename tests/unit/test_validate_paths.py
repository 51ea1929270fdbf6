import os
from pathlib import Path, PurePosixPath
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.errors import PathEscapes, WorkerError
from localai_worker.domain.validate_paths import FileRoots, InvalidKey, KeyRequired, locate_key

from ..traversal import ATTEMPTS, Attempt

ROOTS = FileRoots(models=Path("/srv/models"), data=Path("/srv/data"), staging=Path("/srv/staging"))


def located(key: str) -> str:
    place = locate_key(key, ROOTS)
    return f"{place.root.name}/{place.relative}"


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("models/qwen3/qwen.gguf", "models/qwen3/qwen.gguf"),
        ("models/org/qwen3/sub/qwen.gguf", "models/org/qwen3/sub/qwen.gguf"),
        ("data/out/model.bin", "data/out/model.bin"),
        ("ephemeral/inputs/0123abcd/cat.png", "staging/ephemeral/inputs/0123abcd/cat.png"),
        ("localai-output-1.tmp", "staging/localai-output-1.tmp"),
        ("models", "staging/models"),
        ("modelsx/a", "staging/modelsx/a"),
        ("Models/a", "staging/Models/a"),
        ("models/", "models/."),
        ("data/", "data/."),
        ("/", "staging/."),
        ("models/a b/ü.gguf", "models/a b/ü.gguf"),
        ("models/.hidden", "models/.hidden"),
        ("models/-rf", "models/-rf"),
    ],
)
def test_a_key_leads_into_the_directory_its_prefix_names(key: str, place: str) -> None:
    """M-7.1: model names with slashes included."""
    assert located(key) == place


def test_an_empty_key_is_required() -> None:
    with pytest.raises(KeyRequired, match=r"^key is required$"):
        locate_key("", ROOTS)


def test_an_escape_names_the_path_it_would_have_led_to() -> None:
    roots = FileRoots(Path("/models"), Path("/data"), Path("/staging"))
    with pytest.raises(PathEscapes) as caught:
        locate_key("models/../../etc/cron.d/x", roots)
    assert caught.value.path == "/etc/cron.d/x"
    assert caught.value.root == Path("/models")
    with pytest.raises(PathEscapes) as caught:
        locate_key("//../x", roots)
    assert caught.value.path == "/x"
    with pytest.raises(PathEscapes) as caught:
        locate_key("models/../models/x", roots)
    assert caught.value.path == "/models/../models/x"


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: ascii(attempt.raw))
def test_no_encoding_of_a_key_leaves_its_directory(attempt: Attempt) -> None:
    key = unquote_to_bytes(attempt.raw).decode("utf-8", "surrogateescape")
    if attempt.lands is None:
        with pytest.raises((PathEscapes, InvalidKey)):
            locate_key(key, ROOTS)
    else:
        assert located(key) == attempt.lands


def test_the_corpus_is_large_and_holds_nothing_twice() -> None:
    assert len({attempt.raw for attempt in ATTEMPTS}) == len(ATTEMPTS) >= 60


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("models/a\0b", "NUL"),
        ("models/\udcff", "not valid UTF-8"),
        ("\ud800", "not valid UTF-8"),
        ("models/" + "n" * 256, "256 bytes, file systems take 255"),
        ("models/" + "é" * 150 + "/x", "300 bytes, file systems take 255"),
        ("models/.model.gguf.0123.incoming", "worker's own"),
        ("models/" + "d/" * 2100 + "x", "the system takes 4095"),
    ],
)
def test_a_key_no_file_can_have_is_refused_with_the_reason(key: str, reason: str) -> None:
    """H-29: a NUL or bytes that are not UTF-8 are the client's mistake, never a crash."""
    with pytest.raises(InvalidKey, match=reason):
        locate_key(key, ROOTS)


def test_the_longest_legal_name_is_taken() -> None:
    name = "é" * 127 + "x"
    assert len(name.encode()) == 255
    assert located(f"models/{name}") == f"models/{name}"


def test_a_refusal_shows_a_long_or_odd_key_in_short_and_plainly() -> None:
    assert str(InvalidKey("\n\udcff", "odd")) == r"invalid key '\n\udcff': odd"
    assert len(str(InvalidKey("x" * 10_000, "long"))) < 150


PARTS = st.one_of(
    st.sampled_from(
        ["..", ".", "", "models", "data", "staging", "a", "/", "\0", "\udcff", "~", "..\\", "%2e%2e"]
    ),
    st.text(max_size=8),
)


@given(st.lists(PARTS, max_size=12).map("/".join))
def test_whatever_the_key_the_place_is_below_its_root(key: str) -> None:
    try:
        place = locate_key(key, ROOTS)
    except WorkerError:
        return
    assert place.root in {ROOTS.models, ROOTS.data, ROOTS.staging}
    assert not place.relative.is_absolute()
    assert not {"..", ""} & set(place.relative.parts)
    assert Path(os.path.normpath(place.path)) == place.path
    assert place.path.is_relative_to(place.root)
    assert place.root / PurePosixPath(place.relative) == place.path


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
    )
)
def test_a_plain_key_keeps_every_name_so_that_the_path_ends_with_it(names: list[str]) -> None:
    plain = [name for name in names if name not in {".", ".."} and not name.endswith(".incoming")]
    key = "/".join(["models", "m", *plain])
    assert str(locate_key(key, ROOTS).path).endswith(key)
