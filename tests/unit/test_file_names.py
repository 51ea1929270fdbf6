from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.file_names import (
    NAME_LIMIT_BYTES,
    hide_own_files,
    is_partial_directory_name,
    is_private_name,
    is_sidecar_name,
    parse_partial_file_name,
    partial_directory_name,
    partial_file_name,
    private_name,
    sidecar_of,
    sidecar_subject,
)
from localai_worker.domain.ports.filesystem import RootedPath


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_a_private_name_is_legal_hidden_and_recognised(name: str) -> None:
    private = private_name(name, "0123456789abcdef")
    assert private.startswith(".")
    assert private.endswith(".0123456789abcdef.incoming")
    assert len(private.encode()) <= NAME_LIMIT_BYTES
    assert is_private_name(private)


def test_a_private_name_starts_with_the_name_it_stands_for() -> None:
    assert private_name("model.gguf", "7") == ".model.gguf.7.incoming"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_a_partial_file_has_one_private_directory_by_its_name(name: str) -> None:
    directory = partial_directory_name(name)
    assert directory == partial_directory_name(name)
    assert directory != partial_directory_name(name + "x")
    assert is_private_name(directory)
    assert is_partial_directory_name(directory)
    assert len(directory.encode()) <= NAME_LIMIT_BYTES
    assert not is_partial_directory_name(private_name(name, "0123456789abcdef"))


@pytest.mark.parametrize("sha256", ["", "0123456789abcdef" * 4])
def test_a_partial_file_says_what_it_will_be(sha256: str) -> None:
    assert parse_partial_file_name(partial_file_name(sha256, 5368709120)) == (sha256, 5368709120)


@pytest.mark.parametrize("name", ["", "x", "unknown", "unknown-", "unknown-x", "-5", "A" * 64 + "-5", "0-1"])
def test_other_names_are_no_partial_file(name: str) -> None:
    assert parse_partial_file_name(name) is None


@pytest.mark.parametrize("name", ["model.gguf", ".hidden", "x.incoming", ".incomingx"])
def test_other_names_are_not_private(name: str) -> None:
    assert not is_private_name(name)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("x.gguf.sha256", "x.gguf"),
        ("x.gguf.sha256.target", "x.gguf"),
        ("x.gguf.sha256.sha256", "x.gguf.sha256"),
        ("x.gguf", "x.gguf"),
        (".sha256", ".sha256"),
        ("x.SHA256", "x.SHA256"),
        ("x.target", "x.target"),
    ],
)
def test_a_sidecar_is_known_by_its_name(name: str, subject: str) -> None:
    assert sidecar_subject(name) == subject
    assert is_sidecar_name(name) is (name != subject)


def place(relative: str) -> RootedPath:
    return RootedPath(Path("/models"), PurePosixPath(relative))


def test_a_sidecar_lies_beside_its_file() -> None:
    assert sidecar_of(place("m/x.gguf")) == place("m/x.gguf.sha256")


@pytest.mark.parametrize("relative", ["x.sha256", "x.sha256.target", "n" * 249])
def test_a_sidecar_and_a_very_long_name_have_none(relative: str) -> None:
    assert sidecar_of(place(relative)) is None


def test_a_listing_hides_what_the_worker_put_there_and_nothing_else() -> None:
    """H-15: upstream lists its own hash files, and exports carry them along."""
    listed = [
        "a.bin", "a.bin.sha256", "a.bin.sha256.target", ".a.bin.1.incoming", "orphan.sha256",
        "d/a.bin.sha256", ".t.2.incoming/f", "d/.hidden",
    ]  # fmt: skip
    paths = tuple(PurePosixPath(path) for path in listed)
    assert [str(path) for path in hide_own_files(paths)] == [
        "a.bin",
        "orphan.sha256",
        "d/a.bin.sha256",
        "d/.hidden",
    ]
